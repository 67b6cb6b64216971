import Synchronization
import WeirCore

/// How a user's request ended, for the metrics: told once, by whoever knows it first. One that
/// nobody takes to its end (a stream whose client went) was cancelled.
final class RequestEnd: Sendable {
    private struct State {
        // Names from the policy, or a dash: what is not known yet when a request is refused.
        var type: String
        var tier = "-"
        var isTold = false
    }

    private let state: Mutex<State>
    private let metrics: any GatewayMetrics
    private let clock: any GatewayClock
    private let began: UInt64

    init(_ metrics: any GatewayMetrics, _ clock: any GatewayClock, type: String = "-") {
        state = Mutex(State(type: type))
        self.metrics = metrics
        self.clock = clock
        began = clock.nowNanoseconds
    }

    deinit { tell(Reason.cancelled.name) }

    func belongs(toTier tier: String) { state.withLock { $0.tier = tier } }
    func isOf(type: String) { state.withLock { $0.type = type } }

    /// `status`: `complete`, `partial` or a reason.
    func tell(_ status: String) {
        let ended = state.withLock { state -> State? in
            defer { state.isTold = true }
            return state.isTold ? nil : state
        }
        guard let ended else { return }
        metrics.analysisEnded(
            type: ended.type, tier: ended.tier, status: status,
            nanoseconds: clock.nowNanoseconds - began)
    }
}

extension WorkloadAdmission {
    /// Answers inside of the gateway's own limit; a refusal is told as the request's end.
    func answer(
        _ end: RequestEnd, _ work: () async throws(GatewayRefusal) -> GatewayAnswer
    ) async throws(GatewayRefusal) -> GatewayAnswer {
        do throws(GatewayRefusal) {
            try enter()
            defer { leave() }
            return try await work()
        } catch {
            end.tell(error.reason.name)
            throw error
        }
    }
}
