/// Whether this Redis keeps what it acknowledges (LEDGER rule 12): with `appendfsync everysec`, a
/// stalled fsync and a kill lost 1,259 of 2,984 acknowledged writes.
package enum RedisPersistence {
    /// What is wrong, for people; empty when grants are safe.
    package static func problems(of redis: Redis) async throws(RedisError) -> [String] {
        let replies = try await redis.readAll([
            ["INFO", "persistence"], ["INFO", "memory"], ["INFO", "replication"],
            ["CONFIG", "GET", "appendfsync"],
        ])
        var info: [String: String] = [:]
        for reply in replies.prefix(3) {
            info.merge(fields(ofInfo: reply.text ?? ""), uniquingKeysWith: { $1 })
        }
        return problems(info: info, appendFsync: replies[3].fields["appendfsync"])
    }

    static func problems(info: [String: String], appendFsync: String?) -> [String] {
        var problems: [String] = []
        if info["aof_enabled"] != "1" { problems.append("appendonly is not yes") }
        if appendFsync != "always" {
            problems.append("appendfsync is \(appendFsync ?? "unknown"), not always")
        }
        if info["maxmemory_policy"] != "noeviction" {
            let policy = info["maxmemory_policy"] ?? "unknown"
            problems.append("maxmemory-policy is \(policy), not noeviction")
        }
        if info["aof_last_write_status"].map({ $0 != "ok" }) ?? false {
            problems.append("the last write to the append-only file failed")
        }
        if info["role"] != "master" { problems.append("this Redis is no master") }
        return problems
    }

    static func fields(ofInfo text: String) -> [String: String] {
        var fields: [String: String] = [:]
        for line in text.split(whereSeparator: \.isNewline) where !line.hasPrefix("#") {
            let parts = line.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
            if parts.count == 2 { fields[String(parts[0])] = String(parts[1]) }
        }
        return fields
    }
}
