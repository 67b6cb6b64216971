import WeirCore

/// What people changed outside the policy, and why: tiers, limits, keys, write-offs.
package struct AdminAction: Hashable, Sendable, Codable {
    package var at: UnixTime
    package var author: String
    /// "budget.update", "tier.set", "api_key.revoke", "ledger.write_off", …
    package var action: String
    package var subject: String
    package var detail: String
    package var reason: String

    package init(
        at: UnixTime, author: String, action: String, subject: String, detail: String,
        reason: String
    ) {
        self.at = at
        self.author = author
        self.action = action
        self.subject = subject
        self.detail = detail
        self.reason = reason
    }
}

/// The newest actions, a bounded number of them.
package struct AdminLog: Sendable {
    private let redis: Redis

    package init(redis: Redis) { self.redis = redis }

    package func append(_ action: AdminAction) async throws {
        let line = try JSON.encodeValue(action).text
        guard line.utf8.count <= StoreLimits.adminActionBytesMax else {
            throw Problem(path: "/reason", message: "the text is too long")
        }
        try await redis.command(["LPUSH", StoreKeys.adminLog, line])
        try await redis.command(
            ["LTRIM", StoreKeys.adminLog, "0", String(StoreLimits.adminActionsMax - 1)],
            isIdempotent: true)
    }

    /// The newest first.
    package func newest(limit: Int) async throws -> [AdminAction] {
        let last = min(max(1, limit), StoreLimits.adminActionsMax) - 1
        let reply = try await redis.read("LRANGE", StoreKeys.adminLog, "0", String(last))
        return try (reply.array ?? []).compactMap(\.bytes).map {
            try JSON.decode(AdminAction.self, from: $0)
        }
    }
}
