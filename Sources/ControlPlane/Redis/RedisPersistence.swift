/// Whether this Redis keeps what it acknowledges (LEDGER rule 12): with `appendfsync everysec`, a
/// stalled fsync and a kill lost 1,259 of 2,984 acknowledged writes.
package enum RedisPersistence {
    package struct Status: Hashable, Sendable {
        /// What is wrong, for people; empty when grants are safe.
        package var problems: [String]
        /// Those that have caught up; one that still copies is no data node yet.
        package var replicas: Int
    }

    package static func status(of redis: Redis) async throws(RedisError) -> Status {
        let replies = try await redis.readAll([
            ["INFO", "persistence"], ["INFO", "memory"], ["INFO", "replication"],
            ["CONFIG", "GET", "appendfsync"],
        ])
        var info: [String: String] = [:]
        for reply in replies.prefix(3) {
            info.merge(fields(ofInfo: reply.text ?? ""), uniquingKeysWith: { $1 })
        }
        return Status(
            problems: problems(info: info, appendFsync: replies[3].fields["appendfsync"]),
            replicas: onlineReplicas(info: info))
    }

    package static func problems(of redis: Redis) async throws(RedisError) -> [String] {
        try await status(of: redis).problems
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

    /// "slave0:ip=…,port=…,state=online,…", one line each.
    static func onlineReplicas(info: [String: String]) -> Int {
        info.filter { name, value in
            name.hasPrefix("slave") && name.dropFirst(5).allSatisfy(\.isNumber)
                && value.split(separator: ",").contains("state=online")
        }.count
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
