import Synchronization
import WeirCore
import WeirCrypto
import WeirLedger
import WeirMeshProtocol

/// A call whose answer has begun. Its end is told to the ledger exactly once: by `end`, or when the
/// last reference goes. A child that did not say what it cost stays open at its whole amount until
/// the control plane brings its final.
final class OpenAgentCall: Sendable {
    let answer: any AgentAnswerStream
    private let opened: AttemptReport
    private let ended = Mutex<AttemptReport?>(nil)
    private let ledger: any CallerLedger
    private let budget: RunBudget
    private let settlements: SettlementReader

    /// - Parameter attempt: at its worst case, which `budget` holds for it.
    init(
        answer: any AgentAnswerStream, attempt: AttemptReport, ledger: any CallerLedger,
        budget: RunBudget, settlements: SettlementReader
    ) {
        self.answer = answer
        opened = attempt
        self.ledger = ledger
        self.budget = budget
        self.settlements = settlements
    }

    deinit { end() }

    /// The sidecar refused by itself; known with the head, because no body of the agent's follows.
    var refusal: Reason? {
        let reason = settlements.read(answer.field(Settlement.headerName))?.reason
        return reason == .admitted ? nil : reason
    }

    /// The next bytes of the body; `nil` at its end.
    func next() async throws(AgentCallError) -> [UInt8]? { try await answer.next() }

    /// What is left of the body, which may be no larger than `bytesMax`.
    func body(bytesMax: Int) async throws(AgentCallError) -> [UInt8] {
        var body: [UInt8] = []
        while let bytes = try await answer.next() {
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
        ended.withLock { ended in
            if let ended { return ended }
            answer.cancel()
            let report = settle()
            ended = report
            return report
        }
    }

    private func settle() -> AttemptReport {
        var report = opened
        let key = settlements.key
        if let settlement = settlements.read(answer.settlement) {
            report.outcome = settlement.reason
            if settlement.isFinal {
                report.cost = settlement.consumed
                report.source = settlement.source
                report.model = settlement.model.isEmpty ? report.model : settlement.model
                ledger.childFinal(key, consumed: settlement.consumed)
            } else {
                ledger.childLost(key)
            }
        } else {
            ledger.childLost(key)
        }
        budget.settle(opened.cost, cost: report.cost)
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
