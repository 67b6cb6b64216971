import Synchronization
import WeirCore
import WeirCrypto
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

/// A call whose answer has begun. Its end is told to the ledger exactly once: by `end`, or when the
/// last reference goes. A child that did not say what it cost stays open at its whole amount until
/// the control plane brings its final.
final class OpenAgentCall: Sendable {
    let answer: any AgentAnswerStream
    private struct State {
        var ended: AttemptReport?
        /// What the end said of the sidecar.
        var end: CallEnd?
        var isWhole = false
        var error: AgentCallError?
    }

    private let opened: AttemptReport
    private let state = Mutex(State())
    private let held: HeldPick
    private let paid: PaidCall
    private let ledger: any CallerLedger
    private let budget: RunBudget
    private let settlements: SettlementReader

    /// - Parameter attempt: at its worst case, which `budget` holds for it.
    init(
        answer: any AgentAnswerStream, attempt: AttemptReport, paid: PaidCall,
        ledger: any CallerLedger, budget: RunBudget, held: HeldPick, settlements: SettlementReader
    ) {
        self.held = held
        self.answer = answer
        opened = attempt
        self.paid = paid
        self.ledger = ledger
        self.budget = budget
        self.settlements = settlements
    }

    deinit { end() }

    var agent: String { opened.agent }

    /// The sidecar refused by itself: then the settlement stands in the head, because no body of
    /// the agent's follows.
    private var refusal: Reason? {
        let settlement = settlements.read(answer.field(Settlement.headerName))
        guard let settlement, !settlement.isObserved else { return nil }
        return settlement.reason == .admitted ? nil : settlement.reason
    }

    /// The next bytes of the body; `nil` at its end.
    func next() async throws(AgentCallError) -> [UInt8]? {
        do throws(AgentCallError) {
            let bytes = try await answer.next()
            if bytes == nil { state.withLock { $0.isWhole = true } }
            return bytes
        } catch {
            state.withLock { $0.error = error }
            throw error
        }
    }

    /// What is left of the body, which may be no larger than `bytesMax`.
    func body(bytesMax: Int) async throws(AgentCallError) -> [UInt8] {
        var body: [UInt8] = []
        while let bytes = try await next() {
            guard body.count + bytes.count <= bytesMax else {
                throw AgentCallError(reason: .tooLarge, wasSent: true)
            }
            body += bytes
        }
        return body
    }

    /// What the call cost, as far as its sidecar has said: all of it once the body was read to its
    /// end. An answer that is still on its way is cancelled, and its agent's policy says whether
    /// the sidecar reads on.
    @discardableResult
    func end() -> AttemptReport {
        state.withLock { state in
            if let ended = state.ended { return ended }
            answer.cancel()
            let report = settle()
            state.ended = report
            let settlement = settlements.read(answer.settlement)
            let end =
                state.error.map { CallEnd($0) }
                ?? CallEnd(status: answer.status, settlement, isWhole: state.isWhole)
            state.end = end
            held.ended(end.outcome)
            return report
        }
    }

    /// Behind the end: another sidecar may do what this one did not.
    func mayTryAnother(_ agent: AgentPolicy) -> Bool {
        state.withLock { $0.end?.mayRetry(agent) ?? false }
    }

    private func settle() -> AttemptReport {
        var report = opened
        // The reason in a trailer is what the record says, also of an answer that was let through
        // because the policy only observes.
        report.outcome = refusal ?? .admitted
        if let settlement = settlements.read(answer.settlement) {
            report.observed = settlement.isObserved ? settlement.reason : nil
            report.callsCost = settlement.outbound
            report.isSettledWell = settlement.isFinal && settlement.reason == .admitted
            if settlement.isFinal {
                report.cost = settlement.consumed
                report.source = settlement.source
                report.model = settlement.model.isEmpty ? report.model : settlement.model
                ledger.callFinal(
                    paid, consumed: settlement.consumed, tokens: settlement.tokens)
            } else {
                ledger.callLost(paid)
            }
        } else {
            ledger.callLost(paid)
        }
        budget.settle(opened.totalCost, cost: report.totalCost)
        return report
    }
}

extension AgentAnswerStream {
    /// Of the trailer, or of the field where there is none. What it says counts only if it was
    /// sealed for the call.
    var settlement: String? { trailer(Settlement.headerName) ?? field(Settlement.headerName) }
}

/// Reads the way back: a settlement counts if the sidecar that was called sealed it for this child.
struct SettlementReader: Sendable {
    let key: ChildKey
    let endpoint: AgentEndpoint

    func read(_ text: String?) -> Settlement? {
        guard let text, let payload = Sealed.open(text, key: endpoint.hopKey),
            let settlement = Settlement(payload: payload), settlement.key == key
        else { return nil }
        return settlement
    }
}
