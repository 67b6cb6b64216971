import ArgumentParser
import Foundation
import Testing
import WeirCore
import WeirCrypto
import WeirPolicy

@testable import WeirCLI

@Suite("The command line, decided apart from done")
struct CommandTests {
    @Test func optionsOfTheConnectionMayComeFirst() {
        #expect(
            Weir.reordered(["--server", "http://h:1", "--timeout=3", "apply", "-f", "x"])
                == ["apply", "-f", "x", "--server", "http://h:1", "--timeout=3"])
        #expect(Weir.reordered(["get", "policy"]) == ["get", "policy"])
    }

    @Test func pricesAreOneCatalogueWithTheirDate() throws {
        let documents = try #require(
            try JSON.parse(
                #"[{"kind":"Agent"},{"kind":"PriceTable","metadata":{"name":"list"},"#
                    + #""spec":{"dated":"2026-11-01","prices":[{"model":"m","aliases":["n"],"#
                    + #""tokens":{"input":"1","output":"2"},"steps":[{"inputTokensAbove":9,"#
                    + #""tokens":{"input":"3","output":"4"}}]},"#
                    + #"{"model":"o","perRequest":"0.1","version":3}]}}]"#
            ).array)
        let now = UnixTime(seconds: 1_800_000_000)
        func prices(_ model: String?) -> [JSONValue] {
            Prices.prices(documents, model: model, at: now)
        }
        let all = Prices.table(prices(nil)).rows
        #expect(all.map(\.first) == ["m", "  above 9 tokens", "o"])
        #expect(
            all[0] == ["m", "1", "-", "-", "2", "-", "-", "-", "1", "", "list", "2026-11-01", "n"])
        #expect(all[2].dropFirst(6) == ["0.1", "-", "3", "", "list", "2026-11-01", ""])
        #expect(prices("n").map { $0["model"] } == ["m"])
        #expect(prices("o-2026-01-02").map { $0["model"] } == ["o"])
        #expect(prices("x").isEmpty)
    }

    @Test(arguments: [
        ("2026-11-30T23:59:59Z", [true, false]), ("2026-12-01T00:00:00Z", [false, true]),
    ])
    func pricesOfAllTimesAreShownAndThatOfNowIsMarked(_ now: String, _ marks: [Bool]) throws {
        let documents = try #require(
            try JSON.parse(
                #"[{"kind":"PriceTable","metadata":{"name":"old"},"spec":{"dated":"2026-11-01","#
                    + #""prices":[{"model":"m","perRequest":"1"}]}},"#
                    + #"{"kind":"PriceTable","metadata":{"name":"new"},"#
                    + #""spec":{"dated":"2026-11-20","validFrom":"2026-12-01","#
                    + #""prices":[{"model":"m","perRequest":"2","version":2}]}}]"#
            ).array)
        let time = try #require(UnixTime(rfc3339: now))
        let prices = Prices.prices(documents, model: "m", at: time)
        #expect(prices.map { $0["in_force"] } == marks.map { .bool($0) })
        let names = Prices.table(prices).rows.map(\.first)
        #expect(names == marks.map { $0 ? "m *" : "m" })
        #expect(Prices.table(prices).rows.map { $0[9] } == ["", "2026-12-01"])
    }

    @Test func anAccountThatAgreedOnceIsRightAndOnlyThenIsTheCodeZero() throws {
        func look(_ states: [String: String], omitted: Int = 0) -> [JSONValue] {
            let accounts = states.sorted { $0.key < $1.key }.map { name, state -> JSONValue in
                [
                    "account": .string("usd/user/2026-11/" + name), "state": .string(state),
                    "consumed_usd": "0.500000",
                    "causes": [["cause": "not_recorded", "amount_usd": "0.1"]],
                ]
            }
            return [
                ["period": "2026-11", "accounts": .array(accounts), "omitted": 0],
                [
                    "accounts": [], "omitted": .number(JSONNumber(omitted)),
                    "not_named_by_records": 2,
                ],
            ]
        }
        var result = ReconcileResult()
        result.look(look(["ann": "differs", "bob": "agrees"]))
        #expect(!result.agrees)
        #expect(result.summary.contains("1 DIFFER"))
        #expect(result.table(all: false).rows.map(\.first) == ["usd/user/2026-11/ann"])
        #expect(result.table(all: false).rows.first?.last == "not_recorded 0.1")
        // Bob spends meanwhile, and had agreed.
        result.look(look(["ann": "agrees", "bob": "differs"]))
        #expect(result.agrees)
        #expect(
            result.summary
                == "2026-11: 2 accounts agree (users' 1.000000 USD); 2 cannot be told from records")
        #expect(result.json(all: true)["accounts"]?.array?.count == 2)
        result.look(look(["ann": "agrees"], omitted: 3))
        #expect(!result.agrees)
    }

    @Test func holdersAreAskedForPageByPageUntilThereAreEnough() async throws {
        let pages: [String: JSONValue] = [
            "": ["holders": [["state": "alive"], ["state": "silent"]], "next": "2"],
            "?cursor=2": ["holders": [["state": "silent"], ["state": "alive"]], "next": "4"],
            "?cursor=4": ["holders": [["state": "silent"]]],
        ]
        func list(_ limit: Int, _ state: String?) async throws -> (count: Int, hasMore: Bool) {
            let list = try await LedgerHolders.list(limit: limit, state: state) {
                try #require(pages[$0])
            }
            return (list.holders.count, list.hasMore)
        }
        #expect(try await list(9, nil) == (5, false))
        #expect(try await list(5, nil) == (5, false))
        #expect(try await list(4, nil) == (4, true))
        #expect(try await list(9, "silent") == (3, false))
        #expect(try await list(1, "silent") == (1, true))
    }

    @Test func aWriteOffSaysWhatItCountedAndWhatItWould() {
        var answer: JSONObject = [
            "incarnation": 7, "instance": "gateway-1", "dry_run": true, "spent_usd": "0.010000",
            "spent_requests": 2, "awaited_calls": 1, "accounts_omitted": 3,
            "accounts": [
                ["account": "usd/user/2026-11/ann", "amount": "0.010000"],
                ["account": "requests/user/2026-11-23/ann", "amount": 2],
            ],
        ]
        #expect(
            LedgerWriteOff.summary(.object(answer))
                == "7 (gateway-1): 0.010000 USD and 2 requests of 5 accounts would count as spent; "
                + "1 calls of others to it cost their whole amount")
        #expect(
            Table.shares(.object(answer)).rows == [
                ["usd/user/2026-11/ann", "0.010000 USD"],
                ["requests/user/2026-11-23/ann", "2 requests"], ["and 3 more", ""],
            ])
        (answer["dry_run"], answer["spent_requests"], answer["awaited_calls"]) = (false, 0, 0)
        answer["accounts_omitted"] = 0
        #expect(
            LedgerWriteOff.summary(.object(answer))
                == "7 (gateway-1): 0.010000 USD of 2 accounts count as spent")
    }

    @Test func aRolloutWaitsForTheConnectedAndStopsAtARefusal() throws {
        func sidecar(_ name: String, _ connected: Bool, _ policy: JSONValue) -> JSONValue {
            [
                "agent": .string(name), "instance": "i", "connected": .bool(connected),
                "policy": policy,
            ]
        }
        let version: JSONValue = ["epoch": 1, "number": 5, "hash": "x"]
        let rollout = Rollout(version: try #require(VersionText(version)))
        let waiting = rollout.status([
            "sidecars": [
                sidecar("a", true, ["applied": version]), sidecar("b", false, [:]),
                sidecar("c", true, ["applied": ["epoch": 1, "number": 4]]),
            ]
        ])
        #expect(waiting == Rollout.Status(running: 1, waiting: ["c (i)"], refusals: []))
        let refused = rollout.status([
            "sidecars": [
                sidecar(
                    "a", true,
                    [
                        "refused": [
                            "version": version, "problems": [["path": "/p", "message": "no"]],
                        ]
                    ])
            ]
        ])
        #expect(refused.refusals == ["  a (i)\n    /p: no"])
    }

    @Test func problemsNameFilesAndDocuments() throws {
        let folder = "/tmp/weir-cli-\(UUID().uuidString)"
        try FileManager.default.createDirectory(
            atPath: folder + "/sub", withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        try "kind: A\n---\nkind: B\n".write(
            toFile: folder + "/a.yaml", atomically: true, encoding: .utf8)
        try #"{"kind": "C"}"#.write(
            toFile: folder + "/sub/c.json", atomically: true, encoding: .utf8)
        try "not a policy".write(toFile: folder + "/notes.txt", atomically: true, encoding: .utf8)
        let files = try PolicyFiles([folder])
        #expect(files.documents.compactMap { $0["kind"]?.string } == ["A", "B", "C"])
        #expect(
            files.describe(Problem(path: "/documents/1/spec/x", message: "no"))
                == "\(folder)/a.yaml (document 2): /spec/x: no")
        #expect(
            files.describe(Problem(path: "/documents/2", message: "no"))
                == "\(folder)/sub/c.json: no")
        #expect(files.describe(Problem(path: "/documents/9", message: "no")) == "/documents/9: no")
        #expect(throws: Failure.self) { try PolicyFiles([folder + "/missing"]) }
    }

    /// As the kubelet mounts one: links to files of a hidden folder, so that all change at once.
    @Test func aMountedConfigMapIsReadOnce() throws {
        let folder = NSTemporaryDirectory() + "weir-configmap-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let hidden = folder + "/..2026_11_22_12_00_00.1"
        try FileManager.default.createDirectory(
            atPath: hidden, withIntermediateDirectories: true)
        try "kind: A".write(toFile: hidden + "/a.yaml", atomically: true, encoding: .utf8)
        let links = [("..data", "..2026_11_22_12_00_00.1"), ("a.yaml", "..data/a.yaml")]
        for (name, target) in links {
            try FileManager.default.createSymbolicLink(
                atPath: "\(folder)/\(name)", withDestinationPath: target)
        }
        #expect(try PolicyFiles([folder]).documents.compactMap { $0["kind"]?.string } == ["A"])
    }

    @Test func aCompiledPolicyIsReadAsOne() throws {
        let documents = try SamplePolicy.documents()
        let compiled = try CompiledPolicy(PolicyCompile.compiled(documents))
        #expect(compiled.documents == documents)
        #expect(
            compiled.version.hash
                == Hex.encode(Crypto.sha256(CompiledPolicy.canonicalBytes(of: documents))))
    }

    @Test func aTokenIsSignedAndSaysWhoAndHowLong() throws {
        var mint = try TokenMint.parse(["--user", "alice", "--tier", "free", "--role", "operator"])
        mint.tenant = "acme"
        let secret = String(repeating: "s", count: 32)
        let token = mint.token(secret: secret, now: 1_000, seconds: 60)
        let parts = token.split(separator: ".")
        try #require(parts.count == 3)
        let claims = try JSON.parse(try #require(Base64URL.decode(parts[1])))
        #expect(
            claims == [
                "sub": "alice", "tier": "free", "tenant": "acme", "roles": ["operator"],
                "iat": 1_000, "exp": 1_060,
            ])
        let code = Crypto.hmacSHA256(
            key: Array(secret.utf8), Array("\(parts[0]).\(parts[1])".utf8))
        #expect(Base64URL.decode(parts[2]) == code)

        mint.issuer = "here"
        mint.audience = "weir"
        let named = mint.token(secret: secret, now: 1_000, seconds: 60).split(separator: ".")
        let more = try JSON.parse(try #require(Base64URL.decode(named[1])))
        #expect(more["iss"] == "here" && more["aud"] == "weir")
    }

    @Test func aNewKeyIsDescribedAsItsOptionsSay() throws {
        let create = try KeyCreate.parse([
            "--user", "robot", "--role", "user", "--role", "operator", "--ttl", "90d", "--budget",
            "2.50",
        ])
        #expect(
            try create.body() == [
                "user": "robot", "roles": ["user", "operator"], "monthly_limit_usd": "2.50",
                "valid_seconds": 7_776_000,
            ])
        let wrong = try KeyCreate.parse(["--user", "robot", "--ttl", "1w"])
        #expect(throws: Failure.self) { try wrong.body() }
        #expect(try PathSegment.encode("a/b c\u{e9}") == "a%2Fb%20c%C3%A9")
    }

    @Test(
        arguments: [
            ("90s", 90), ("2m", 120), ("1h", 3_600), ("1d", 86_400), ("0s", nil), ("1w", nil),
            ("", nil), ("h", nil), ("9223372036854775807d", nil),
        ] as [(String, Int64?)])
    func lifetimesAreRead(text: String, seconds: Int64?) {
        #expect(TokenMint.seconds(text) == seconds)
    }

    @Test func aCheckIsBadWhenOneFindingIs() {
        var report = CheckReport()
        report.addReadiness([
            "checks": [["name": "redis", "state": "ok", "detail": "answers"]]
        ])
        report.addSidecars([
            "sidecars": [
                [
                    "agent": "a", "instance": "i", "connected": true,
                    "policy": ["state": "current", "applied": ["epoch": 1, "number": 2]],
                    "health": ["state": "degraded", "reasons": ["journal"]],
                ]
            ]
        ])
        #expect(!report.isBad)
        #expect(report.text.contains("‼ a (i): runs 1.2; degraded (journal)"))
        report.addReadiness([
            "checks": [["name": "persistence", "state": "failed", "detail": "off"]]
        ])
        #expect(report.isBad)
        #expect(report.text.hasSuffix("3 checks: 1 failed, 1 to look at"))
    }

    @Test func tablesAlign() {
        let table = Table(headings: ["A", "LONG"], rows: [["wide cell", "1"], ["x", ""]])
        #expect(table.text == "A           LONG\nwide cell   1\nx")
        #expect(Table(headings: ["A"]).text == "No resources found.")
    }
}
