/// Whether this Redis keeps what it acknowledges (LEDGER rule 12): with `appendfsync everysec`, a
/// stalled fsync and a kill lost 1,259 of 2,984 acknowledged writes.
package enum RedisPersistence {
    package struct Status: Hashable, Sendable {
        /// What is wrong, for people; empty when grants are safe.
        package var problems: [String] = []
        /// Replicas of each primary that have caught up; one that still copies is no data node yet.
        var replicas: [RedisOrigin: Int] = [:]
        /// What each primary calls the history of its data; another one after each restart and
        /// failover.
        var histories: Set<String> = []
    }

    package static func status(of redis: Redis) async throws(RedisError) -> Status {
        let answers = try await redis.askPrimaries([
            ["INFO", "persistence"], ["INFO", "memory"], ["INFO", "replication"],
            ["CONFIG", "GET", "appendfsync"],
        ])
        var status = Status()
        for (origin, replies) in answers {
            var info: [String: String] = [:]
            for reply in replies.prefix(3) {
                info.merge(fields(ofInfo: reply.text ?? ""), uniquingKeysWith: { $1 })
            }
            let place = answers.count > 1 ? origin.node.map { "\($0): " } ?? "" : ""
            let found = problems(info: info, appendFsync: replies[3].fields["appendfsync"])
            status.problems += found.map { place + $0 }
            // A primary that was cut off sees no replicas; Sentinels remember them.
            status.replicas[origin] = max(onlineReplicas(info: info), redis.knownReplicas)
            if let history = info["master_replid"] { status.histories.insert(history) }
        }
        return status
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
