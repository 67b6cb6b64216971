import SidecarCore
import Synchronization
import WeirCore
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

/// Which sidecar of an agent a call goes to: by the user's version, and within it by `EndpointSet`.
/// One for the process, so that what one loop finds out about a sidecar all of them know. Whoever
/// calls an agent picks here, and gives the pick back with its outcome.
///
/// A gateway never refuses because of what it knows of sidecars: where all circuits are open, the
/// least bad sidecar is asked, whose own breaker refuses fast if it must.
package final class EndpointPicker: Sendable {
    /// Held by one call until its outcome.
    package struct Picked: Sendable {
        package let endpoint: AgentEndpoint
        fileprivate let agent: String
        fileprivate let choice: EndpointSet<Incarnation>.Choice
    }

    package struct Status: Sendable {
        package var address: String
        package var version: String?
        package var endpoint: EndpointSet<Incarnation>.Status
    }

    fileprivate struct Group {
        var set: EndpointSet<Incarnation>
        var retries: RetryBudget
        var endpoints: [AgentEndpoint] = []
        var generation: UInt64?
        /// Calls by version, the empty one for sidecars that say none.
        var calls: [String: UInt64] = [:]
    }

    private struct State {
        var groups: [String: Group] = [:]
        var random = SystemRandomNumberGenerator()
    }

    private let state = Mutex(State())

    package init() {}

    /// `nil` when nobody (else) may be asked: no sidecar is known, all were tried, or the retry
    /// budget is spent.
    ///
    /// - Parameter tried: sidecars that this call was refused by or could not reach.
    package func pick(
        _ agent: AgentPolicy, in snapshot: GatewaySnapshot, for user: String,
        tried: [Incarnation] = [], nowNanoseconds now: UInt64
    ) -> Picked? {
        let endpoints = snapshot.endpoints[agent.name] ?? []
        let candidates = endpoints.filter { !tried.contains($0.incarnation) }
        return state.withLock { state in
            var group =
                state.groups[agent.name]
                ?? Group(set: EndpointSet([], agent.breaker), retries: RetryBudget(agent.retry))
            defer { state.groups[agent.name] = group }
            group.learn(agent, endpoints, snapshot.generation)
            if tried.isEmpty {
                group.retries.requestStarted(now: now)
            } else {
                guard !candidates.isEmpty, tried.count < agent.retry.attemptsMax,
                    group.retries.takeRetry(now: now)
                else { return nil }
            }
            let random = state.random.next()
            guard
                let choice = group.choose(
                    agent, candidates, user, isRetry: !tried.isEmpty, now, random),
                let endpoint = candidates.first(where: { $0.incarnation == choice.key })
            else { return nil }
            group.calls[endpoint.version ?? "", default: 0] += 1
            return Picked(endpoint: endpoint, agent: agent.name, choice: choice)
        }
    }

    /// - Parameter headNanoseconds: when the answer began, if it did.
    package func ended(
        _ picked: Picked, _ outcome: CircuitBreaker.Outcome, headNanoseconds: UInt64? = nil,
        nowNanoseconds now: UInt64
    ) {
        let began = picked.choice.startedNanoseconds
        state.withLock { state in
            let random = state.random.next()
            state.groups[picked.agent]?.set.ended(
                picked.choice, outcome,
                latencyNanoseconds: headNanoseconds.map { $0 - min(began, $0) },
                nowNanoseconds: now, random: random)
        }
    }

    /// What is known of the sidecars that were called at least once, by agent.
    package func statuses(nowNanoseconds now: UInt64) -> [String: [Status]] {
        state.withLock { state in
            state.groups.mapValues { group in
                group.set.statuses(nowNanoseconds: now).compactMap { status in
                    group.endpoints.first { $0.incarnation == status.key }.map {
                        Status(address: $0.address, version: $0.version, endpoint: status)
                    }
                }
            }
        }
    }

    /// Shows what is known at each scrape. The breakers are this gateway's own, apart from those
    /// that the sidecars themselves keep of their agents and export as `circuit_breaker_state`.
    package func show(in registry: Metrics, now: @escaping @Sendable () -> UInt64) {
        registry.collect { [self] text in
            let groups = statuses(nowNanoseconds: now()).sorted { $0.key < $1.key }
            text.family(
                "weir_sidecar_serving", .gauge,
                help: "1 while this gateway balances to the sidecar, 0 while it is out.")
            for (agent, statuses) in groups {
                for status in statuses {
                    let labels = [
                        ("agent", agent), ("endpoint", status.address),
                        ("version", status.version ?? ""),
                    ]
                    text.sample(
                        "weir_sidecar_serving", labels, status.endpoint.isServing ? "1" : "0")
                }
            }
            text.family(
                "weir_agent_calls_total", .counter,
                help: "Calls of this gateway to an agent's sidecars, by the agent's version.")
            let calls = state.withLock { $0.groups.mapValues(\.calls) }
            for (agent, versions) in calls.sorted(by: { $0.key < $1.key }) {
                for (version, count) in versions.sorted(by: { $0.key < $1.key }) {
                    text.sample(
                        "weir_agent_calls_total", [("agent", agent), ("version", version)],
                        String(count))
                }
            }
        }
    }
}

extension EndpointPicker.Group {
    /// A request keeps the snapshot that it began with; what is known follows the newest.
    fileprivate mutating func learn(
        _ agent: AgentPolicy, _ endpoints: [AgentEndpoint], _ generation: UInt64
    ) {
        if let known = self.generation, known >= generation { return }
        self.generation = generation
        self.endpoints = endpoints
        set.update(endpoints.map(\.incarnation))
        set.change(agent.breaker)
        retries.change(agent.retry)
        let versions = Set(endpoints.map { $0.version ?? "" })
        calls = calls.filter { versions.contains($0.key) }
    }

    /// The user's version, then the others that have weight, then anybody.
    fileprivate mutating func choose(
        _ agent: AgentPolicy, _ candidates: [AgentEndpoint], _ user: String, isRetry: Bool,
        _ now: UInt64, _ random: UInt64
    ) -> EndpointSet<Incarnation>.Choice? {
        for version in VersionSplit.order(agent, user: user) {
            let pick = set.pick(nowNanoseconds: now, random: random, onlyServing: true) { key in
                candidates.contains { $0.incarnation == key && $0.version == version }
            }
            if case .chosen(let choice) = pick { return choice }
        }
        // A second try is for those that may serve; the first goes out whatever is known.
        let pick = set.pick(
            nowNanoseconds: now, random: random, whenAllAreOut: isRetry ? .refuse : .tryLeastBad
        ) { key in candidates.contains { $0.incarnation == key } }
        guard case .chosen(let choice) = pick else { return nil }
        return choice
    }
}

/// A pick on its way through a call: given back exactly once, by the first who knows the outcome.
final class HeldPick: Sendable {
    let picked: EndpointPicker.Picked
    private let picker: EndpointPicker
    private let clock: any GatewayClock
    private let state = Mutex((headNanoseconds: UInt64?.none, isEnded: false))

    init(_ picked: EndpointPicker.Picked, picker: EndpointPicker, clock: any GatewayClock) {
        self.picked = picked
        self.picker = picker
        self.clock = clock
    }

    deinit { ended(.unknown) }

    func headArrived() {
        let now = clock.nowNanoseconds
        state.withLock { $0.headNanoseconds = now }
    }

    func ended(_ outcome: CircuitBreaker.Outcome) {
        let (head, wasEnded) = state.withLock { state in
            defer { state.isEnded = true }
            return (state.headNanoseconds, state.isEnded)
        }
        guard !wasEnded else { return }
        picker.ended(
            picked, outcome, headNanoseconds: head, nowNanoseconds: clock.nowNanoseconds)
    }
}

/// What the end of a call says of the sidecar that was called, and whether another one may be asked
/// instead. Pure.
package struct CallEnd: Hashable, Sendable {
    package let outcome: CircuitBreaker.Outcome
    /// Nothing was done for the call, and nothing is due.
    package let wasRefusedUnprocessed: Bool
    /// It was sent, and no answer can be used; doing it again may do it twice.
    package let failedAfterSend: Bool

    /// Another sidecar of the agent is worth a try.
    package func mayRetry(_ agent: AgentPolicy) -> Bool {
        wasRefusedUnprocessed || failedAfterSend && agent.retry.afterSend
    }

    /// There was no answer.
    package init(_ error: AgentCallError) {
        switch error.reason {
        case .cancelled: outcome = .unknown
        case .deadline: outcome = .callerTimedOut
        default:
            outcome = .failure(
                error.wasSent ? .closedBeforeAnswer : .connect, retryAfterNanoseconds: nil)
        }
        let isOver = error.reason == .cancelled || error.reason == .deadline
        wasRefusedUnprocessed = !error.wasSent && !isOver
        failedAfterSend = error.wasSent && !isOver
    }

    /// - Parameter settlement: `nil` where the answer brought none that counts.
    /// - Parameter isWhole: it was read to its end; else whoever called had enough of it.
    package init(status: Int, _ settlement: Settlement?, isWhole: Bool) {
        let reason = settlement?.reason ?? .admitted
        outcome = isWhole || settlement != nil ? Self.outcome(reason, status) : .unknown
        let isFree = settlement.map { $0.isFinal && $0.consumed == .zero && $0.source == .none }
        let instances: Set<Reason> = [
            .circuitOpen, .overloaded, .noEndpoint, .rateLimited, .upstreamError,
        ]
        wasRefusedUnprocessed = isFree == true && instances.contains(reason)
        failedAfterSend =
            reason == .upstreamError || reason == .upstreamProtocol
            || reason == .admitted && status >= 500
    }

    private static func outcome(_ reason: Reason, _ status: Int) -> CircuitBreaker.Outcome {
        switch reason {
        case .admitted:
            status >= 500 ? .failure(.serverError, retryAfterNanoseconds: nil) : .success
        case .upstreamError, .circuitOpen, .noEndpoint:
            .failure(.serverError, retryAfterNanoseconds: nil)
        case .upstreamProtocol: .failure(.protocolError, retryAfterNanoseconds: nil)
        case .deadline: .callerTimedOut
        // It lives, and has no room.
        case .overloaded, .rateLimited: .failure(.rateLimited, retryAfterNanoseconds: nil)
        default: .unknown
        }
    }
}
