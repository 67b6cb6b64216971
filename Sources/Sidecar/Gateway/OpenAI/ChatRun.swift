import SidecarCore
import WeirCore
import WeirPolicy

/// Asks the agents of a chat one after the other, cheaper ones first when little is left of the
/// budget, until one answers.
struct ChatRun: Sendable {
    let chat: ChatRequest
    let calls: AgentCaller
    let deadlineNanoseconds: UInt64

    func run() async -> (AgentFailover.Outcome<ChatReply>, CandidateOrder.Downgrade?) {
        let order = CandidateOrder(
            chat.candidates.map { ($0.agent.name, $0.bound.worstCase) }, tier: calls.caller.tier,
            spentPercent: calls.ledger.balance?.spentPercent)
        let candidates = order.names.compactMap { name in
            chat.candidates.first { $0.agent.name == name }
        }
        let failover = AgentFailover(calls: calls, deadlineNanoseconds: deadlineNanoseconds)
        let kept: @Sendable (AgentCaller.Prepared) -> ChatReply? = { prepared in
            calls.kept(prepared).map { ChatReply(kept: $0.answer, $0.attempt, of: prepared) }
        }
        let outcome = await failover.run(candidates, kept: kept) {
            prepared, picked, _ throws(AgentCaller.Failure) in
            let reply = try await ChatReply.open(
                prepared, at: picked, by: calls, until: deadlineNanoseconds)
            if case .whole(let body, let attempt) = reply.content, reply.status == 200 {
                calls.keep(body, contentType: reply.contentType, attempt, to: prepared)
            }
            return reply
        }
        return (outcome, order.downgrade)
    }
}
