import SidecarCore
import WeirCore
import WeirLedger
import WeirPolicy

/// Turns what came of a chat into the answer: its fields say who answered and why it was not
/// another one; cost and what is left are fields of a whole answer and trailers of a stream.
struct ChatAnswer: Sendable {
    let request: ChatRequest
    let outcome: AgentFailover.Outcome<ChatReply>
    let downgrade: CandidateOrder.Downgrade?
    let ledger: any CallerLedger
    let clock: any GatewayClock
    /// `nil` for a call of an agent's, which is no request of a user.
    var end: RequestEnd?
    /// The request's until the last byte of its answer.
    var place: WorkloadPlace?

    private static let trailers: StaticString = "weir-cost-usd, weir-budget-remaining-usd"

    /// The answer, or the refusal where no agent gave one.
    func answer() throws(GatewayRefusal) -> GatewayAnswer {
        guard let reply = outcome.success else { throw refusal() }
        let fields = describe(reply)
        switch reply.content {
        case .whole(let body, let attempt):
            end?.tell(reply.status < 300 ? "complete" : Reason.invalid.name)
            place?.leave()
            return GatewayAnswer(
                status: reply.status, fields: fields + moneyFields(attempt.totalCost),
                body: .bytes(body))
        case .stream(let call, let first):
            return GatewayAnswer(
                status: reply.status, fields: fields,
                body: .stream { writer in try await write(call, first, to: writer) },
                trailerNames: Self.trailers)
        }
    }

    // MARK: A stream

    private func write(
        _ call: OpenAgentCall, _ first: [UInt8], to writer: any AnswerWriter
    ) async throws {
        // A client that goes away ends the call here; whether its sidecar reads on is the agent's
        // policy.
        defer {
            call.end()
            place?.leave()
        }
        var events = ChatEvents(removesUsage: !request.wantsUsage)
        var piece: [UInt8]? = first
        var status = "complete"
        while let bytes = piece {
            try await send(events.feed(bytes), to: writer)
            do throws(AgentCallError) {
                piece = try await call.next()
            } catch {
                if Task.isCancelled { throw error }
                status = error.reason.name
                let detail = "\(call.agent) broke off in the middle of its answer."
                try await writer.write(
                    events.fail(OpenAIError(error.reason, message: detail).json))
                piece = nil
            }
        }
        try await send(events.finish(), to: writer)
        for field in moneyFields(call.end().totalCost) { writer.addTrailer(field) }
        end?.tell(status)
    }

    private func send(_ bytes: [UInt8], to writer: any AnswerWriter) async throws {
        if !bytes.isEmpty { try await writer.write(bytes) }
    }

    // MARK: Fields

    private func describe(_ reply: ChatReply) -> [GatewayField] {
        let agent = reply.prepared.agent.name
        let isFallback = outcome.failures.contains { $0.attempt.agent != agent }
        let decision = isFallback ? "fallback" : downgrade == nil ? "admitted" : "downgraded"
        var fields = [
            GatewayField("content-type", reply.contentType),
            GatewayField("cache-control", "no-store"),
            GatewayField("weir-decision", decision),
            GatewayField("weir-agent", agent), GatewayField("weir-model", reply.model),
        ]
        if reply.isKept { fields.append(GatewayField("weir-cache", "hit")) }
        if let limit = request.loweredOutputMax(of: reply.prepared) {
            fields.append(GatewayField("weir-max-tokens", String(limit)))
        }
        // A stream's head goes before its cost is known; what was spent before is known by now.
        guard let balance = ledger.balance else { return fields }
        return fields + balance.warningFields + balance.requestFields(now: clock.now)
    }

    /// What the request cost, attempts in vain included, and what is left.
    private func moneyFields(_ cost: NanoUSD) -> [GatewayField] {
        let total = outcome.failures.reduce(cost) { $0 + $1.attempt.totalCost }
        var fields = [GatewayField("weir-cost-usd", total.usd)]
        if let balance = ledger.balance { fields.append(balance.remainingField) }
        return fields
    }

    // MARK: Failure

    private func refusal() -> GatewayRefusal {
        if outcome.isCancelled { return GatewayRefusal(.cancelled, "The caller went away.") }
        guard let failure = outcome.decisive else {
            return GatewayRefusal(.noEndpoint, "No agent is left to ask.", retryAfterSeconds: 1)
        }
        let reason = failure.attempt.outcome.ofFailedStep
        var refusal = GatewayRefusal(reason, failure.detail)
        if let refused = failure.ledgerRefusal {
            refusal = GatewayRefusal(refused, now: clock.now)
            refusal.detail += " " + failure.detail
        }
        if refusal.reason.status == 503 { refusal.retryAfterSeconds = 1 }
        refusal.members["agent"] = .string(failure.attempt.agent)
        refusal.fields += [GatewayField("weir-agent", failure.attempt.agent)] + moneyFields(.zero)
        refusal.fields += ledger.balance?.warningFields ?? []
        return refusal
    }
}
