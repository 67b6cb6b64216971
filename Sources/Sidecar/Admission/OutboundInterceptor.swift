import WeirCore
import WeirMeshProtocol
import WeirPolicy

/// The outbound listener: the agent's own calls of other agents (`/agents/NAME`) and models
/// (`/v1/chat/completions`, `/v1/models`). A call is let through for a request that is in progress
/// here, and goes to a gateway, which charges it to the same user in the same run. One for each
/// worker.
package final class OutboundInterceptor: Interceptor, @unchecked Sendable {
    // SAFETY: everything is called on the worker's loop.

    private final class Context: InterceptorContext {
        let taken: OutboundRuns.Taken
        /// What the gateway says in the head of a whole answer, and behind a stream.
        var cost: NanoUSD?
        var addressesTried = 1
        /// The gateway's.
        var decision: Reason?
        init(_ taken: OutboundRuns.Taken) { self.taken = taken }
    }

    /// What an agent may ask for, and how much of the run it takes.
    private enum Route {
        /// May cost all that is left.
        case call
        case question

        init?(_ target: String) {
            switch target {
            case "/v1/chat/completions": self = .call
            case "/v1/models": self = .question
            default:
                guard target.hasPrefix(Self.agents) else { return nil }
                let name = target.dropFirst(Self.agents.utf8.count)
                guard !name.isEmpty, !name.contains(where: { $0 == "/" || $0 == "?" }) else {
                    return nil
                }
                self = .call
            }
        }

        private static let agents = "/agents/"

        var method: HTTPMethod { self == .call ? .post : .get }
        var allow: String { self == .call ? "POST" : "GET" }
    }

    private static let costField: StaticString = "weir-cost-usd"

    private let worker: Worker
    private let gateway: UpstreamTarget
    private var addresses: [SocketAddress]
    private let runs: OutboundRuns
    private var snapshot: AdmissionSnapshot
    private let registry: Metrics
    private let shard: MetricsShard
    private let calls: Metrics.Family

    package init(
        worker: Worker, gateway: UpstreamTarget, addresses: [SocketAddress], runs: OutboundRuns,
        snapshot: AdmissionSnapshot, registry: Metrics
    ) {
        self.registry = registry
        shard = registry.shard()
        calls = registry.family(
            .counter, "weir_outbound_calls_total",
            help: "The agent's own calls by decision: admitted, or the reason of the refusal.",
            labels: ["decision"])

        self.worker = worker
        self.gateway = gateway
        self.addresses = addresses
        self.runs = runs
        self.snapshot = snapshot
        super.init()
    }

    /// A new policy, or a new life's keys; on the loop.
    package func apply(_ snapshot: AdmissionSnapshot) {
        worker.loop.preconditionInLoop()
        self.snapshot = snapshot
    }

    /// The gateway's name means something else now; on the loop.
    package func update(addresses: [SocketAddress]) {
        worker.loop.preconditionInLoop()
        self.addresses = addresses
        gateway.update(addresses: addresses)
    }

    override package func requestBegan(_ exchange: Exchange) -> Verdict {
        let head = exchange.requestHead
        let target = head.text(head.target)
        guard let route = Route(target) else { return refuse(Refusal(.unknownRoute), target) }
        guard head.method == route.method else {
            var refusal = Refusal(.method)
            refusal.fields.append(("allow", route.allow))
            return refuse(refusal, target)
        }
        let now = worker.loop.nowNanoseconds
        let field = head.string(named: "weir-run")
        do throws(OutboundRuns.Failure) {
            let taken =
                route == .call
                ? try runs.take(field, nowNanoseconds: now)
                : try runs.look(field, nowNanoseconds: now)
            return forward(exchange, target, taken, now)
        } catch {
            return refuse(
                Refusal(
                    error.reason, detail: error.detail,
                    retryAfterSeconds: error == .busy ? 1 : nil), target)
        }
    }

    /// Clients of the OpenAI API look for its error object.
    private func refuse(_ refusal: Refusal, _ target: String) -> Verdict {
        .refuse(target.hasPrefix("/v1/") ? RefusalShape.openAI(refusal) : refusal)
    }

    private func forward(
        _ exchange: Exchange, _ target: String, _ taken: OutboundRuns.Taken, _ now: UInt64
    ) -> Verdict {
        exchange.context = Context(taken)
        let left = taken.deadlineNanoseconds - now
        guard
            let sealed = snapshot.verifier?.seal(
                taken, agent: snapshot.agent.name, path: target, remainingNanoseconds: left)
        else {
            return refuse(Refusal(.controlPlaneLost, retryAfterSeconds: 1), target)
        }
        // What the agent says of itself is nobody's business; the run speaks for it.
        exchange.removeRequestField(.weir)
        exchange.removeRequestField(.authorization)
        exchange.addedRequestFields.add("authorization", OutboundCall.scheme + " " + sealed)
        exchange.targetOverride = OutboundCall.pathPrefix + target
        exchange.trustsUpstream = true
        exchange.setDeadline(afterNanoseconds: left)
        exchange.upstreamAddress = addresses.first
        return .admit(gateway)
    }

    override package func upstreamUnreachable(_ exchange: Exchange) -> Bool {
        guard let context = exchange.context as? Context,
            context.addressesTried < addresses.count
        else { return false }
        exchange.upstreamAddress = addresses[context.addressesTried]
        context.addressesTried += 1
        return true
    }

    override package func responseBegan(_ exchange: Exchange, status: Int) {
        guard let context = exchange.context as? Context else { return }
        context.cost = exchange.responseHead.flatMap(Self.cost)
        context.decision = exchange.responseHead?.string(named: "weir-decision")
            .flatMap { Reason(name: $0) }
    }

    private static func cost(_ head: HTTPHead) -> NanoUSD? {
        head.string(named: costField).flatMap { NanoUSD(usd: $0) }.flatMap { $0 < .zero ? nil : $0 }
    }

    /// The agent may be gone; what the call costs is wanted nevertheless.
    override package func clientDisconnected(_ exchange: Exchange) -> DisconnectDecision { .drain }

    /// Where nobody said what the call cost, all of it counts as spent.
    override package func exchangeEnded(_ exchange: Exchange, _ outcome: ExchangeOutcome) {
        let context = exchange.context as? Context
        let decision = outcome.kind == .refused ? outcome.reason : context?.decision ?? .admitted
        shard.add(registry.series(calls, [decision.name]))
        guard let context else { return }
        exchange.context = nil
        guard context.taken.amount > .zero else { return }
        let said = context.cost ?? exchange.upstreamTrailers.flatMap(Self.cost)
        let ceiling = outcome.upstreamTouched ? context.taken.amount : .zero
        runs.giveBack(context.taken, cost: said ?? ceiling)
    }
}
