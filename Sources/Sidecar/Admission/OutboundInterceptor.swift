import WeirCore
import WeirMeshProtocol

/// The outbound listener: the agent's own calls of other agents (`/agents/NAME`) and models
/// (`/v1/chat/completions`). A call is let through for a request that is in progress here, and goes
/// to a gateway, which charges it to the same user in the same run. One for each worker.
package final class OutboundInterceptor: Interceptor, @unchecked Sendable {
    // SAFETY: everything is called on the worker's loop.

    private final class Context: InterceptorContext {
        let taken: OutboundRuns.Taken
        var cost: NanoUSD?
        init(_ taken: OutboundRuns.Taken) { self.taken = taken }
    }

    private let worker: Worker
    private let gateway: UpstreamTarget
    private let runs: OutboundRuns
    private var snapshot: AdmissionSnapshot

    package init(
        worker: Worker, gateway: UpstreamTarget, runs: OutboundRuns, snapshot: AdmissionSnapshot
    ) {
        self.worker = worker
        self.gateway = gateway
        self.runs = runs
        self.snapshot = snapshot
        super.init()
    }

    /// A new policy, or a new life's keys; on the loop.
    package func apply(_ snapshot: AdmissionSnapshot) {
        worker.loop.preconditionInLoop()
        self.snapshot = snapshot
    }

    override package func requestBegan(_ exchange: Exchange) -> Verdict {
        let head = exchange.requestHead
        let target = head.text(head.target)
        guard Self.isKnown(target) else { return .refuse(Refusal(.unknownRoute)) }
        guard head.method == .post else {
            var refusal = Refusal(.method)
            refusal.fields.append(("allow", "POST"))
            return .refuse(refusal)
        }
        let now = worker.loop.nowNanoseconds
        do throws(OutboundRuns.Failure) {
            let taken = try runs.take(
                head.string(named: "weir-run"), nowNanoseconds: now)
            return forward(exchange, target, taken, now)
        } catch {
            return .refuse(Refusal(error.reason, detail: error.detail))
        }
    }

    private static func isKnown(_ target: String) -> Bool {
        if target == "/v1/chat/completions" { return true }
        guard target.hasPrefix("/agents/") else { return false }
        let name = target.dropFirst("/agents/".utf8.count)
        return !name.isEmpty && !name.contains { $0 == "/" || $0 == "?" }
    }

    private func forward(
        _ exchange: Exchange, _ target: String, _ taken: OutboundRuns.Taken, _ now: UInt64
    ) -> Verdict {
        exchange.context = Context(taken)
        let left = taken.deadlineNanoseconds - now
        guard
            let sealed = snapshot.verifier?.seal(
                taken, agent: snapshot.agent.name, remainingNanoseconds: left)
        else {
            return .refuse(Refusal(.controlPlaneLost, retryAfterSeconds: 1))
        }
        // What the agent says of itself is nobody's business; the run speaks for it.
        exchange.removeRequestField(.weir)
        exchange.removeRequestField(.authorization)
        exchange.addedRequestFields.add("authorization", OutboundCall.scheme + " " + sealed)
        exchange.targetOverride = "/outbound" + target
        exchange.trustsUpstream = true
        exchange.setDeadline(afterNanoseconds: left)
        return .admit(gateway)
    }

    override package func responseBegan(_ exchange: Exchange, status: Int) {
        guard let context = exchange.context as? Context else { return }
        context.cost = exchange.responseHead?.string(named: "weir-cost-usd")
            .flatMap { NanoUSD(usd: $0) }
    }

    override package func clientDisconnected(_ exchange: Exchange) -> DisconnectDecision { .drain }

    /// Where nobody said what the call cost, all of it counts as spent.
    override package func exchangeEnded(_ exchange: Exchange, _ outcome: ExchangeOutcome) {
        guard let context = exchange.context as? Context else { return }
        exchange.context = nil
        let ceiling = outcome.upstreamTouched ? context.taken.amount : .zero
        runs.giveBack(context.taken, cost: context.cost ?? ceiling)
    }
}
