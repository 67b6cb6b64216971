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
        let outcome = await failover.run(candidates) {
            prepared, picked, _ throws(AgentCaller.Failure) in
            try await ChatReply.open(
                prepared, at: picked, by: calls, until: deadlineNanoseconds)
        }
        return (outcome, order.downgrade)
    }
}
