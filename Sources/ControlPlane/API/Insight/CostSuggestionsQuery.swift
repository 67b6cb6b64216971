import ControlPlaneStore
import WeirCore
import WeirMeshProtocol
import WeirPolicy

/// `GET /cost/suggestions`: from the caller's own records of the last thirty days, the newest so
/// many of them.
struct CostSuggestionsQuery {
    private static let milliseconds: Int64 = 30 * 86_400_000

    let services: ControlPlaneServices

    func answer(_ request: UserRequest) async throws -> JSONValue {
        var query = QueryReader(request)
        try query.finish()
        let user = request.subject.user
        guard let active = services.hub.active else {
            throw APIProblem.unavailable("There is no policy yet, so there are no prices.")
        }
        guard let tier = active.policy.tiers[request.subject.tier] else {
            throw MeshRefusal(
                reason: Reason.forbidden.name, detail: "the policy does not have your tier")
        }
        let now = try await services.redis.time()
        let from = UnixTime(milliseconds: now.milliseconds - Self.milliseconds)
        let (records, isWhole) = try await records(of: user, from: from, to: now)
        let policy = active.policy.priced(at: now)
        let suggestions = CostSuggestions(records: records, policy: policy, tier: tier).list()
        var object: JSONObject = [
            "user": .string(user), "from": .string(from.rfc3339), "to": .string(now.rfc3339),
            "attempts": .number(JSONNumber(records.count)),
        ]
        if !isWhole, let oldest = records.last {
            object["from"] = .string(oldest.record.startedAt.rfc3339)
        }
        object["suggestions"] = .array(suggestions.map(\.json))
        if suggestions.isEmpty {
            object["reason"] =
                records.count < CostSuggestions.attemptsMin
                ? .string(
                    "\(records.count) attempts say too little; "
                        + "\(CostSuggestions.attemptsMin) are needed")
                : "nothing that would have cost less was found"
        }
        return .object(object)
    }

    /// The newest first; `false`: there are more than are looked at.
    private func records(
        of user: String, from: UnixTime, to: UnixTime
    ) async throws -> ([ArchivedRecord], Bool) {
        var records: [ArchivedRecord] = []
        let filter = RecordFilter(from: from, to: to, subject: user)
        while records.count < ServerLimits.suggestionRecordsMax {
            let page = try await services.archive.records(
                where: filter, olderThan: records.last.map { Archive.Position(of: $0.record) },
                limit: StoreLimits.recordsPageMax)
            records += page
            if page.count < StoreLimits.recordsPageMax { return (records, true) }
        }
        return (records, false)
    }
}
