import NIOHTTP1
import Testing
import WeirCore

@testable import ControlPlaneServer

@Suite("The life of a policy behind the API", .timeLimit(.minutes(1)))
struct PolicyLifeCycleTests {
    @Test func isAppliedReadChangedAndRolledBack() async throws {
        try await TestControlPlane.run { server in
            #expect(try await server.send(.GET, "/v1/policy").status == 404)
            let documents = try SamplePolicy.documents()
            let first = try await server.put(documents)
            try #require(first.status == 200)
            #expect(first.body["version"]?["number"]?.int64 == 1)
            #expect(first.body["changes"]?.array?.count == documents.count)

            let again = try await server.put(documents)
            #expect(again.body["version"]?["number"]?.int64 == 1)
            #expect(again.body["changes"] == [])

            let read = try await server.send(.GET, "/v1/policy")
            #expect(read.body["documents"]?.array == documents)
            #expect(read.entityTag == first.entityTag)
            let known = try await server.send(
                .GET, "/v1/policy", headers: ["if-none-match": read.entityTag])
            #expect(known.status == 304)

            let other = try SamplePolicy.documents(budget: "7", ofTier: "free")
            let second = try await server.put(other)
            #expect(second.body["version"]?["number"]?.int64 == 2)
            #expect(
                second.body["changes"] == [
                    [
                        "kind": "Tier", "name": "free", "change": "changed",
                        "fields": [["path": "/spec/monthlyBudget", "from": "5", "to": "7"]],
                    ]
                ])

            let back = try await server.send(.POST, "/v1/policy/rollback", Array(#"{"to":1}"#.utf8))
            #expect(back.body["version"]?["number"]?.int64 == 3)
            #expect(back.entityTag == first.entityTag)
            let history = try await server.send(.GET, "/v1/policy/history?limit=2")
            let numbers = history.body["versions"]?.array?.compactMap {
                $0["version"]?["number"]?.int64
            }
            #expect(numbers == [3, 2])
            #expect(history.body["versions"]?.array?.first?["note"] == "rollback to 1")
            let older = try await server.send(.GET, "/v1/policy/versions/2")
            #expect(older.body["documents"]?.array == other)
            #expect(try await server.send(.GET, "/v1/policy/versions/9").status == 404)
            let missing = try await server.send(
                .POST, "/v1/policy/rollback", Array(#"{"to":9}"#.utf8))
            #expect(missing.status == 404)
        }
    }

    @Test func aConflictChangesNothing() async throws {
        try await TestControlPlane.run { server in
            let first = try await server.put(try SamplePolicy.documents())
            let other = try SamplePolicy.documents(budget: "7", ofTier: "free")
            let second = try await server.put(other, headers: ["if-match": first.entityTag])
            #expect(second.status == 200)
            let late = try await server.put(
                try SamplePolicy.documents(budget: "8", ofTier: "free"),
                headers: ["if-match": first.entityTag])
            #expect(late.status == 412)
            #expect(late.contentType == "application/problem+json")
            let onlyFirst = try await server.put(other, headers: ["if-none-match": "*"])
            #expect(onlyFirst.status == 412)
            let read = try await server.send(.GET, "/v1/policy")
            #expect(read.entityTag == second.entityTag)
        }
    }

    @Test func ofTwoWhoChangeAtOnceOneIsTold() async throws {
        try await TestControlPlane.run { server in
            let first = try await server.put(try SamplePolicy.documents())
            let statuses = try await withThrowingTaskGroup(of: Int.self) { group in
                for budget in 6..<14 {
                    group.addTask {
                        let documents = try SamplePolicy.documents(
                            budget: "\(budget)", ofTier: "free")
                        return try await server.put(
                            documents, headers: ["if-match": first.entityTag]
                        ).status
                    }
                }
                return try await group.reduce(into: []) { $0.append($1) }
            }
            #expect(statuses.filter { $0 == 200 }.count == 1)
            #expect(statuses.filter { $0 == 412 }.count == 7)
            let read = try await server.send(.GET, "/v1/policy")
            #expect(read.body["version"]?["number"]?.int64 == 2)
        }
    }

    @Test func allProblemsComeAtOnceAndNothingIsActivated() async throws {
        try await TestControlPlane.run { server in
            let bad: [JSONValue] = [
                [
                    "apiVersion": "weir.mesh/v1", "kind": "Agent", "metadata": ["name": "a"],
                    "spec": ["protocol": "smoke signals"],
                ],
                [
                    "apiVersion": "weir.mesh/v1", "kind": "Tier", "metadata": ["name": "t"],
                    "spec": ["agents": ["nobody"]],
                ],
            ]
            let answer = try await server.put(bad)
            #expect(answer.status == 422)
            #expect(answer.contentType == "application/problem+json")
            let paths = answer.body["problems"]?.array?.compactMap { $0["path"]?.string } ?? []
            #expect(paths.contains("/documents/0/spec/protocol"))
            #expect(paths.contains("/documents/1/spec/agents/0"))
            #expect(paths.contains("/documents/1/spec/monthlyBudget"))
            #expect(try await server.send(.GET, "/v1/policy").status == 404)

            let dryRun = try await server.put(bad, query: "?dry_run=true")
            #expect(dryRun.status == 200)
            #expect(dryRun.body["valid"] == false)
            #expect(dryRun.body["problems"] == answer.body["problems"])
            #expect(dryRun.body["changes"]?.array?.count == 2)
        }
    }

    @Test func aDryRunSaysWhatWouldChangeAndChangesNothing() async throws {
        try await TestControlPlane.run { server in
            let first = try await server.put(try SamplePolicy.documents())
            let dryRun = try await server.put(
                try SamplePolicy.documents(budget: "7", ofTier: "free"), query: "?dry_run=true")
            #expect(dryRun.body["valid"] == true)
            #expect(dryRun.body["changes"]?.array?.first?["name"] == "free")
            #expect(try await server.send(.GET, "/v1/policy").entityTag == first.entityTag)
            #expect(
                try await server.put([], query: "?dry_run=perhaps").status == 422)
        }
    }

    @Test func yamlIsTakenAndOtherTypesAreNot() async throws {
        try await TestControlPlane.run { server in
            let yaml = """
                apiVersion: weir.mesh/v1
                kind: Budget
                metadata: {name: whole}
                spec: {scope: mesh, id: mesh, monthlyLimit: "10"}
                ---
                # Nothing here.
                ---
                kind: [unclosed
                """
            let broken = try await server.send(
                .PUT, "/v1/policy", Array(yaml.utf8), headers: ["content-type": "application/yaml"])
            #expect(broken.status == 422)
            let message = broken.body["problems"]?.array?.first?["message"]?.string ?? ""
            #expect(message.hasPrefix("line "))
            let other = try await server.send(
                .PUT, "/v1/policy", [1, 2], headers: ["content-type": "application/octet-stream"])
            #expect(other.status == 415)
            let large = try await server.send(
                .PUT, "/v1/policy", [UInt8](repeating: 32, count: ServerLimits.policyBytesMax + 1),
                headers: ["content-type": "application/json"])
            #expect(large.status == 413)
        }
    }

    @Test(arguments: [nil, "", "administrator-of-the-test", "join-token-of-the-tests"])
    func aBadTokenIsRefused(token: String?) async throws {
        try await TestControlPlane.run { server in
            for path in ["/v1/policy", "/v1/sidecars", "/v1/usage", "/nothing"] {
                let answer = try await server.send(.GET, path, token: token)
                #expect(answer.status == 401)
                #expect(answer.headers.first(name: "www-authenticate") != nil)
                #expect(answer.body["reason"] == "unauthenticated")
            }
            #expect(try await server.send(.GET, "/healthz", token: token).status == 200)
        }
    }

    @Test func unknownPathsAndMethodsAreProblems() async throws {
        try await TestControlPlane.run { server in
            let nothing = try await server.send(.GET, "/v1/nothing")
            #expect(nothing.status == 404)
            #expect(nothing.body["reason"] == "unknown_route")
            let method = try await server.send(.DELETE, "/v1/policy")
            #expect(method.status == 405)
            #expect(method.headers.first(name: "allow") == "GET, HEAD, PUT")
        }
    }
}
