import WeirCore
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

/// What an attempt may cost and what its answer says of it, worked out before its first byte goes
/// upstream. By reference, because every later step reads it: where no request changes the price
/// all requests under one policy share one, and none is made on their way.
final class AttemptTerms: Sendable {
    let bound: AttemptBound
    let least: NanoUSD
    /// Usage must be read from the answer.
    let countsTokens: Bool
    /// Neither the request nor the answer changes what is due, but for the time that it took.
    let isFixed: Bool
    /// What is due for every attempt, where not even time counts.
    let fixedCost: AttemptCost?
    /// `weir-*` of an answer to a request that nothing would have refused.
    let admittedFields: PreparedFields
    /// What the record of a caller without a delegation says.
    let localNames: RecordNames

    init(_ bound: AttemptBound, agent: AgentPolicy, versionText: String) {
        self.bound = bound
        least = bound.least
        countsTokens = bound.price.countsTokens
        isFixed = !countsTokens && !bound.isPolicyCeiling
        fixedCost =
            isFixed && bound.price.perSecond == .zero ? bound.fixedCost(nanoseconds: 0) : nil
        var fields: [(name: StaticString, value: String)] = [
            ("weir-decision", Reason.admitted.name), ("weir-agent", agent.name),
            ("weir-model", bound.model), ("weir-policy-version", versionText),
        ]
        if let limit = bound.writtenOutputMax {
            fields.append(("weir-max-tokens", String(limit)))
        }
        admittedFields = PreparedFields(fields)
        localNames = RecordNames(
            subject: AttemptContext.localSubject, agent: agent.name, model: bound.model)
    }
}
