import NIOHTTP1
import Testing
import WeirCore
import WeirCrypto
import WeirLedger
import WeirMeshProtocol

@testable import ControlPlaneServer

@Suite("API keys and users, as the administrator has them", .timeLimit(.minutes(1)))
struct KeysAndUsersTests {
    private func send(
        _ server: TestControlPlane, _ method: HTTPMethod, _ path: String, _ body: JSONValue? = nil
    ) async throws -> TestControlPlane.Answer {
        try await server.send(
            method, path, body?.bytes, headers: ["content-type": "application/json"])
    }

    private func bind(_ gateway: JoinedSidecar, key: String) async throws -> MeshConnection.Answer {
        try await gateway.post(
            MeshPath.subject,
            SubjectRequest(claims: nil, apiKeyHash: Hex.encode(Crypto.sha256(Array(key.utf8)))))
    }

    @Test func aKeyLivesUntilItIsRevoked() async throws {
        try await TestControlPlane.run { server in
            _ = try await server.put(try SamplePolicy.documents())
            let gateway = try await server.joined(agent: nil)
            let made = try await send(
                server, .POST, "/v1/keys",
                [
                    "user": "service one", "tier": "premium", "roles": ["operator"],
                    "valid_seconds": 3_600, "monthly_limit_usd": "0.5", "note": "batch",
                ])
            #expect(made.status == 201)
            let text = try #require(made.body["key"]?.string)
            let id = try #require(made.body["id"]?.string)
            let binding = try await bind(gateway, key: text).decode(SubjectBinding.self)
            #expect(binding.user == "service one" && binding.tier == "premium")
            #expect(binding.accounts.first { $0.scope == .key }?.limit == NanoUSD(usd: "0.5"))

            let listed = try await send(server, .GET, "/v1/keys?user=service%20one")
            #expect(listed.body["keys"]?.array?.map { $0["id"] } == [.string(id)])
            // The text is in no other answer, nor in the store.
            #expect(!listed.body.text.contains(text))
            #expect(try await send(server, .GET, "/v1/keys/\(id)").body["key"] == nil)

            let revoked = try await send(server, .DELETE, "/v1/keys/\(id)?reason=lost")
            #expect(revoked.body["revoked_at"]?.string != nil)
            let refused = try await bind(gateway, key: text)
            // Not 401, which would end the gateway's session.
            #expect(refused.status == 403)
            #expect(try refused.refusal().reason == "unauthenticated")
            #expect(try await send(server, .GET, "/v1/keys").body["keys"] == [])
            #expect(try await send(server, .DELETE, "/v1/keys/nothing").status == 404)
            let log = try await send(server, .GET, "/v1/admin-log")
            #expect(
                log.body["actions"]?.array?.map { $0["reason"] } == ["lost", "batch"])
        }
    }

    @Test func everyProblemOfANewKeyIsNamed() async throws {
        try await TestControlPlane.run { server in
            _ = try await server.put(try SamplePolicy.documents())
            let answer = try await send(
                server, .POST, "/v1/keys",
                [
                    "tier": "gold", "roles": ["user", "king"], "valid_seconds": 0,
                    "monthly_limit_usd": 3, "colour": "red",
                ])
            #expect(answer.status == 422)
            #expect(
                answer.body["problems"]?.array?.compactMap { $0["path"]?.string } == [
                    "/user", "/tier", "/roles/1", "/monthly_limit_usd", "/valid_seconds",
                    "/colour",
                ])
            _ = try await send(server, .PUT, "/v1/users/alice/tier", ["tier": "free"])
            let conflict = try await send(
                server, .POST, "/v1/keys", ["user": "alice", "tier": "premium"])
            #expect(conflict.status == 409)
        }
    }

    @Test func aUsersTierAndLimitAreChangedAtOnce() async throws {
        try await TestControlPlane.run { server in
            _ = try await server.put(try SamplePolicy.documents())
            let gateway = try await server.joined(agent: nil)
            #expect(try await send(server, .GET, "/v1/users/al%2Fice").status == 404)
            #expect(
                try await send(
                    server, .PUT, "/v1/users/al%2Fice/limit", ["monthly_limit_usd": "1"]
                ).status == 404)
            _ = try await gateway.bind("al/ice")
            let tier = try await send(
                server, .PUT, "/v1/users/al%2Fice/tier", ["tier": "premium", "reason": "paid"])
            #expect(tier.body["user"] == "al/ice" && tier.body["tier"] == "premium")
            #expect(tier.body["monthly_limit_usd"] == "100.000000")
            #expect(tier.body["bound_by"] == "admin")
            let limited = try await send(
                server, .PUT, "/v1/users/al%2Fice/limit", ["monthly_limit_usd": "150"])
            #expect(limited.body["monthly_limit_usd"] == "150.000000")
            // The token still says free.
            let binding = try await gateway.bind("al/ice")
            #expect(binding.tier == "premium")
            #expect(binding.accounts.first?.limit == NanoUSD(usd: "150"))
            let back = try await send(
                server, .PUT, "/v1/users/al%2Fice/limit", ["monthly_limit_usd": .null])
            #expect(back.body["limits_usd"] == ["policy": "100.000000"])
            let wrong = try await send(server, .PUT, "/v1/users/al%2Fice/tier", ["tier": "gold"])
            #expect(wrong.status == 422)
        }
    }

    /// What a gateway holds of a user is taken back over its watch, without asking.
    @Test func gatewaysHearOfChangedUsers() async throws {
        try await TestControlPlane.run { server in
            _ = try await server.put(try SamplePolicy.documents())
            let gateway = try await server.joined(agent: nil)
            _ = try await gateway.bind("alice")
            try await gateway.connection.watch(
                MeshPath.policy + "?watch", session: gateway.response.session
            ) { lines in
                _ = try await lines.nextProjection()
                _ = try await send(server, .PUT, "/v1/users/alice/tier", ["tier": "premium"])
                while let event = try await lines.next() {
                    if case .subjects(let users) = event {
                        #expect(users == ["alice"])
                        return
                    }
                }
                Issue.record("the watch ended")
            }
        }
    }
}
