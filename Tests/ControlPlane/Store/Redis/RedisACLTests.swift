import Glibc
import Testing
import WeirCore
import WeirLedger
import WeirMeshProtocol

@testable import ControlPlaneStore

/// The control plane's user in Redis, with the rule of docs/redis.md and no right more.
@Suite(.timeLimit(.minutes(1))) struct RedisACLTests {
    private static let rule = [
        "on", ">pass", "resetkeys", "~weir:*", "resetchannels", "&weir:*", "-@all", "+@hash",
        "+@string", "+@sortedset", "+@set", "+@list", "+del", "+exists", "+expire", "+pexpire",
        "+pexpireat", "+eval", "+evalsha", "+script|load", "+publish", "+subscribe", "+ping",
        "+time", "+info", "+scan", "+config|get", "+wait", "+role", "+select", "+cluster|slots",
        "+asking",
    ]

    @Test func theRuleOfTheDocumentationIsThisOne() throws {
        let root = #filePath.split(separator: "/").dropLast(5).joined(separator: "/")
        let page = try #require(readFile("/\(root)/docs/redis.md"))
        let rule = Self.rule.map { $0 == ">pass" ? ">PASSWORD" : $0 }.joined(separator: " ")
        let words = page.split(whereSeparator: \.isWhitespace).joined(separator: " ")
        #expect(words.contains("user weir \(rule)"))
    }

    @Test func theMeshRunsWithItAndNothingElseDoes() async throws {
        let server = try RedisNode.server()
        try server.ask(["ACL", "SETUSER", "weir"] + Self.rule)
        try server.ask(["ACL", "SETUSER", "default", "off"])
        let url = "redis://weir:pass@127.0.0.1:\(server.port)/0"
        let mesh = try await LedgerOn(url)
        #expect(try await mesh.ledger.check().isEmpty)
        let account = try await mesh.account("ann", limit: 40)
        let holders = try await mesh.holders(2)
        try await mesh.report(holders)
        let storm = LeaseStorm(ledger: mesh.ledger, account: account)
        await storm.run(holders)
        #expect(storm.told == 40)
        let lease = LeaseID(incarnation: holders[0], number: 1)
        let counters = LedgerMesh.counters(lease, account, consumed: 1, released: 0)
        _ = try await mesh.ledger.report(
            LedgerMesh.report(highest: 1, [counters]), by: holders[0])
        _ = try await mesh.ledger.writeOff(holders[1])
        let policies = PolicyStore(redis: mesh.redis)
        let version = try await policies.activate(
            documents: [], hash: "h", author: "test", note: "")
        #expect(try await policies.current()?.version == version)
        #expect(try await policies.history(limit: 5).count == 1)
        #expect(try await SidecarRegistry(redis: mesh.redis).list().count == 2)
        #expect(try await mesh.redis.time() > UnixTime(milliseconds: 0))
        var hints = mesh.redis.hints().makeAsyncIterator()
        #expect(await hints.next() == .anything)

        for command in [
            ["GET", "other:key"], ["SET", "other:key", "1"], ["FLUSHALL"], ["KEYS", "*"],
            ["CONFIG", "SET", "appendfsync", "no"], ["PUBLISH", "other", "x"],
            ["EVAL", "return redis.call('GET', 'other:key')", "0"], ["ACL", "LIST"],
            ["REPLICAOF", "NO", "ONE"], ["SHUTDOWN", "NOSAVE"],
        ] {
            do {
                try await mesh.redis.command(command)
                Issue.record("\(command[0]) was served")
            } catch RedisError.server(let text) {
                #expect(text.contains("NOPERM") || text.contains("can't access at least one"))
            }
        }
        let wrong = try Redis(url: "redis://weir:other@127.0.0.1:\(server.port)")
        await #expect(throws: RedisError.timeout(maybeExecuted: false)) {
            try await wrong.command(["PING"], timeoutNanoseconds: 200_000_000)
        }
    }

    private func readFile(_ path: String) -> String? {
        guard let file = fopen(path, "r") else { return nil }
        defer { fclose(file) }
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        while case let count = fread(&buffer, 1, buffer.count, file), count > 0 {
            bytes += buffer[..<count]
        }
        return String(validating: bytes, as: UTF8.self)
    }
}
