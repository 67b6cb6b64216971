import Synchronization
import WeirCore

/// What happens in a run, as it is told to the client of an event stream.
enum RunEvent: Hashable, Sendable {
    case stepStarted(String)
    /// Words of a chat agent. With another `attempt` the step begins anew: what earlier ones wrote
    /// is void.
    case stepDelta(step: String, agent: String, attempt: Int, text: String)
    /// With its result or its problem.
    case stepEnded(StepReport)
}

/// Events between a run and the connection that they go out on. A run never waits for its client:
/// words that are not taken yet are put together, so what is held is bounded by what the answer of
/// a run may be.
final class RunEvents: Sendable {
    fileprivate struct State {
        var waiting: [RunEvent] = []
        var wake: Wake?
        var isOver = false
    }

    private let state = Mutex(State())

    func send(_ event: RunEvent) {
        let wake = state.withLock { state -> Wake? in
            state.append(event)
            return state.wake
        }
        wake?.call()
    }

    /// Nothing comes any more.
    func end() {
        let wake = state.withLock { state -> Wake? in
            state.isOver = true
            return state.wake
        }
        wake?.call()
    }

    /// What came since the last call; empty when nothing did for so long. `nil`: that was all.
    func next(withinNanoseconds limit: UInt64, _ clock: any GatewayClock) async -> [RunEvent]? {
        let wake = Wake()
        let mustWait = state.withLock { state in
            guard state.waiting.isEmpty, !state.isOver else { return false }
            state.wake = wake
            return true
        }
        if mustWait { _ = await wake.wait(until: clock.nowNanoseconds + limit, clock) }
        return state.withLock { state in
            state.wake = nil
            defer { state.waiting = [] }
            return state.waiting.isEmpty && state.isOver ? nil : state.waiting
        }
    }
}

extension RunEvents.State {
    fileprivate mutating func append(_ event: RunEvent) {
        if case .stepDelta(let step, let agent, let attempt, let text) = event,
            case .stepDelta(step, agent, attempt, let before)? = waiting.last
        {
            waiting[waiting.count - 1] = .stepDelta(
                step: step, agent: agent, attempt: attempt, text: before + text)
        } else {
            waiting.append(event)
        }
    }
}

extension RunEvent {
    /// As a server-sent event (HTML, "Server-sent events", §9.2.6).
    var bytes: [UInt8] {
        switch self {
        case .stepStarted(let name):
            return Self.bytes("step.started", JSONValue.object(["name": .string(name)]).bytes)
        case .stepDelta(let step, let agent, let attempt, let text):
            let data: JSONValue = [
                "name": .string(step), "agent": .string(agent),
                "attempt": .number(JSONNumber(attempt)), "text": .string(text),
            ]
            return Self.bytes("step.delta", data.bytes)
        case .stepEnded(let report):
            var isDone = false
            if case .ok = report.end { isDone = true }
            return Self.bytes(isDone ? "step.completed" : "step.failed", report.json.bytes)
        }
    }

    /// A comment: it keeps proxies from thinking that nobody is there.
    static let heartbeat: [UInt8] = Array(": \n\n".utf8)

    /// `data` is one line, as the JSON that we write always is.
    static func bytes(_ name: String, _ data: [UInt8]) -> [UInt8] {
        Array("event: \(name)\ndata: ".utf8) + data + Array("\n\n".utf8)
    }
}
