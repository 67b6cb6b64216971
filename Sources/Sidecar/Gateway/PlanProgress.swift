import WeirCore
import WeirPolicy

/// How far a plan has come. Pure: ends of steps come in, steps to begin go out. A step begins when
/// every step that it depends on has ended; those that are ready run at once.
///
///     waiting --dependencies ended--> running --> ok | failed | cancelled
///        └--a dependency is not ok, an input is absent, the tier has no agent--> skipped
///
/// A step whose inputs are all optional needs one of them: with nothing to read it is skipped.
/// A skipped step is a failure only by what it was skipped for: data that the caller left out and
/// steps that the tier does not have leave a result complete.
package struct PlanProgress: Sendable {
    package enum Skip: Hashable, Sendable {
        /// The tier has no agent for it.
        case notInTier
        /// Its caller excluded all of its agents.
        case excluded
        /// An input of it is absent: the caller left it out, or the step that gives it was skipped
        /// for such a reason itself.
        case inputAbsent(String)
        /// This step, on which it depends, failed.
        case dependency(String)
        /// The request ended before it began.
        case ended
    }

    package enum End: Hashable, Sendable {
        case ok(JSONValue)
        case failed(Reason)
        case skipped(Skip)
        /// The deadline or another step's failure stopped it in mid-run.
        case cancelled
    }

    /// A step that can begin, with its inputs.
    package struct Start: Hashable, Sendable {
        package let step: RequestTypePolicy.Step
        package let inputs: [String: JSONValue]
    }

    private let type: RequestTypePolicy
    private let tier: String
    private let data: JSONValue
    private let excluded: Set<String>
    private var running: Set<String> = []
    package private(set) var ends: [String: End] = [:]

    /// - Parameter excluded: steps of which the caller wants no agent.
    package init(
        type: RequestTypePolicy, tier: String, data: JSONValue, excluded: Set<String> = []
    ) {
        self.type = type
        self.excluded = excluded
        self.tier = tier
        self.data = data
    }

    package var isOver: Bool { ends.count == type.steps.count }

    /// The first required step that failed, in the plan's order.
    package var failedRequiredStep: (name: String, reason: Reason)? {
        for step in type.steps where step.required {
            switch ends[step.name] {
            case .failed(let reason): return (step.name, reason)
            case .skipped(.dependency(let name)):
                // A required step behind an optional one that failed.
                if case .failed(let reason) = ends[name] { return (step.name, reason) }
            case .ok, .skipped, .cancelled, nil: continue
            }
        }
        return nil
    }

    /// The first failure where no step succeeded at all: a request that gave nothing has failed,
    /// whatever was required.
    package var failureOfAll: (name: String, reason: Reason)? {
        var first: (name: String, reason: Reason)?
        for step in type.steps {
            switch ends[step.name] {
            case .ok: return nil
            case .failed(let reason): first = first ?? (step.name, reason)
            case .skipped, .cancelled, nil: continue
            }
        }
        return first
    }

    package var hasResult: Bool {
        ends.values.contains { if case .ok = $0 { true } else { false } }
    }

    /// Whether every required step has its result, or is skipped without anybody's failure.
    package var requiredStepsAreDone: Bool {
        type.steps.allSatisfy { step in
            guard step.required else { return true }
            switch ends[step.name] {
            case .ok, .skipped(.notInTier), .skipped(.excluded), .skipped(.inputAbsent): return true
            case .failed, .cancelled, .skipped(.dependency), .skipped(.ended), nil: return false
            }
        }
    }

    /// Whether nothing failed and nothing was cut short.
    package var isComplete: Bool {
        type.steps.allSatisfy { step in
            switch ends[step.name] {
            case .ok, .skipped(.notInTier), .skipped(.excluded), .skipped(.inputAbsent): return true
            case .failed, .cancelled, .skipped(.dependency), .skipped(.ended), nil: return false
            }
        }
    }

    // MARK: Events

    /// The steps that may begin now. Skips what cannot run, which may let others begin.
    package mutating func takeReady() -> [Start] {
        var starts: [Start] = []
        var changed = true
        while changed {
            changed = false
            for step in type.steps where ends[step.name] == nil && !running.contains(step.name) {
                guard step.dependencies.allSatisfy({ ends[$0] != nil }) else { continue }
                switch readiness(of: step) {
                case .success(let inputs):
                    running.insert(step.name)
                    starts.append(Start(step: step, inputs: inputs))
                case .failure(let why):
                    ends[step.name] = .skipped(why.skip)
                    changed = true
                }
            }
        }
        return starts
    }

    package mutating func stepEnded(_ name: String, _ end: End) {
        precondition(running.remove(name) != nil, "a step ended that did not run: \(name)")
        ends[name] = end
    }

    /// The request is over: what runs is cancelled, what waits will not begin.
    package mutating func stop() {
        for step in type.steps where ends[step.name] == nil {
            ends[step.name] = running.contains(step.name) ? .cancelled : .skipped(.ended)
        }
        running = []
    }

    // MARK: Inputs

    private struct NotReady: Error { let skip: Skip }

    private func readiness(
        of step: RequestTypePolicy.Step
    ) -> Result<[String: JSONValue], NotReady> {
        guard step.agentsByTier[tier] != nil else { return .failure(NotReady(skip: .notInTier)) }
        guard !excluded.contains(step.name) else { return .failure(NotReady(skip: .excluded)) }
        for name in step.after {
            if let skip = skip(becauseOf: name) { return .failure(NotReady(skip: skip)) }
        }
        let root = document
        var inputs: [String: JSONValue] = [:]
        for (name, input) in step.input.sorted(by: { $0.key < $1.key }) {
            if let value = input.pointer.evaluate(root), value != .null {
                inputs[name] = value
            } else if !input.isOptional {
                let skip = input.step.flatMap { self.skip(becauseOf: $0) } ?? .inputAbsent(name)
                return .failure(NotReady(skip: skip))
            }
        }
        if inputs.isEmpty, let skip = skipForWantOfInput(step) {
            return .failure(NotReady(skip: skip))
        }
        return .success(inputs)
    }

    /// None of a step's inputs is there. A failure among those that should have given them counts
    /// more than what nobody asked for.
    private func skipForWantOfInput(_ step: RequestTypePolicy.Step) -> Skip? {
        let inputs = step.input.sorted { $0.key < $1.key }
        let skips = inputs.compactMap { $0.value.step.flatMap { self.skip(becauseOf: $0) } }
        let failure = skips.first { if case .dependency = $0 { true } else { false } }
        return failure ?? inputs.first.map { .inputAbsent($0.key) }
    }

    private func skip(becauseOf name: String) -> Skip? {
        switch ends[name] {
        case .ok, nil: nil
        case .failed, .cancelled: .dependency(name)
        case .skipped(.notInTier), .skipped(.excluded), .skipped(.inputAbsent): .inputAbsent(name)
        case .skipped(.dependency(let cause)): .dependency(cause)
        case .skipped(.ended): .ended
        }
    }

    /// What pointers lead into.
    private var document: JSONValue {
        var steps = JSONObject()
        for (name, end) in ends {
            if case .ok(let result) = end { steps[name] = ["result": result] }
        }
        return ["data": data, "steps": .object(steps)]
    }
}
