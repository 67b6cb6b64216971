import NIOHTTP1
import Testing
import WeirCore
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

@testable import ControlPlaneServer

@Suite("What gateways pass on for users", .timeLimit(.minutes(1)))
struct UserMessagesTests {
    private static func subject(_ user: String, roles: [String] = []) -> UserRequest.Subject {
        UserRequest.Subject(user: user, tenant: nil, tier: "free", roles: roles)
    }

    /// A control plane with the project's policy, and users that a gateway has seen.
    private func run(
        users: [String] = ["alice"],
        _ body: @Sendable (TestControlPlane, JoinedSidecar) async throws -> Void
    ) async throws {
        try await TestControlPlane.run { server in
            _ = try await server.put(try SamplePolicy.documents())
            let gateway = try await server.joined(agent: nil)
            for user in users { _ = try await gateway.bind(user) }
            try await body(server, gateway)
        }
    }

    @Test func onlyGatewaysSpeakForUsers() async throws {
        try await run { server, gateway in
            let sidecar = try await server.joined()
            let request = UserRequest(subject: Self.subject("alice"))
            for operation in UserOperation.allCases {
                let path = MeshPath.user(operation)
                #expect(try await sidecar.post(path, request).status == 403)
                let stranger = try await sidecar.connection.send(
                    "POST", path, try JSON.encode(request), session: "nobody")
                #expect(stranger.status == 401)
                let garbage = try await gateway.connection.send(
                    "POST", path, Array("{}".utf8), session: gateway.response.session)
                #expect(garbage.status == 400)
            }
            // Nor may a sidecar look into users' answers.
            let idempotency = IdempotencyRequest(
                user: "alice", key: "k", bodyHash: "aa", claim: "1", action: .release)
            #expect(try await sidecar.post(MeshPath.idempotency, idempotency).status == 403)
        }
    }

    @Test func preferencesAreKeptAndComeWithTheBinding() async throws {
        try await run { _, gateway in
            let path = MeshPath.user(.preferences)
            var request = UserRequest(subject: Self.subject("alice"))
            let none = try await gateway.post(path, request)
            #expect(try none.decode(JSONValue.self) == ["prefer": [:], "exclude": []])
            let wanted: JSONValue = [
                "prefer": ["explanation": "llama2-7b"], "exclude": [],
                "max_cost_usd_per_request": "0.250000", "optimize": "cost",
            ]
            request.body = wanted
            #expect(try await gateway.post(path, request).decode(JSONValue.self) == wanted)
            #expect(try await gateway.bind("alice").preferences?.json == wanted)
            request.body = nil
            #expect(try await gateway.post(path, request).decode(JSONValue.self) == wanted)

            request.body = ["prefer": ["explanation": "gpt4-turbo"], "optimise": "cost"]
            let refused = try await gateway.post(path, request)
            #expect(refused.status == 422)
            let refusal = try refused.refusal()
            #expect(refusal.reason == "invalid")
            #expect(refusal.problems?.map(\.path) == ["/optimise", "/prefer/explanation"])
        }
    }

    @Test func aUserLowersTheOwnBudgetAndNoMore() async throws {
        try await run(users: ["alice", "bob"]) { _, gateway in
            func update(_ body: JSONValue, roles: [String] = []) async throws
                -> MeshConnection.Answer
            {
                try await gateway.post(
                    MeshPath.user(.budget),
                    UserRequest(subject: Self.subject("alice", roles: roles), body: body))
            }
            let lowered = try await update(["monthly_limit_usd": "2.5", "reason": "thrift"])
            #expect(try lowered.decode(JSONValue.self)["monthly_limit_usd"] == "2.500000")
            #expect(
                try await gateway.bind("alice").accounts.first { $0.unit == .usd }?.limit
                    == NanoUSD(usd: "2.5"))
            // Up again as far as the tier goes, and not further.
            #expect(try await update(["monthly_limit_usd": "5"]).status == 200)
            let raised = try await update(["monthly_limit_usd": "5.01"])
            #expect(raised.status == 403)
            #expect(try raised.refusal().detail.contains("admin"))
            let others = try await update(["monthly_limit_usd": "1", "user": "bob"])
            #expect(others.status == 403)
            #expect(try others.refusal().detail.contains("admin"))
            let operators = try await update(
                ["monthly_limit_usd": "1", "user": "bob"], roles: ["operator"])
            #expect(operators.status == 403)

            #expect(
                try await update(["monthly_limit_usd": "50", "user": "bob"], roles: ["admin"])
                    .decode(JSONValue.self)["limits_usd"]
                    == ["policy": "5.000000", "admin": "50.000000"])
            let back = try await update(
                ["monthly_limit_usd": .null, "user": "bob"], roles: ["admin"])
            #expect(try back.decode(JSONValue.self)["monthly_limit_usd"] == "5.000000")
            let unknown = try await update(
                ["monthly_limit_usd": "1", "user": "eve"], roles: ["admin"])
            #expect(try unknown.refusal().problems?.map(\.path) == ["/user"])
            for body: JSONValue in [
                [:], ["monthly_limit_usd": 3], ["monthly_limit_usd": "-1"],
                ["monthly_limit_usd": "1", "currency": "EUR"],
            ] {
                #expect(try await update(body).status == 422)
            }
        }
    }
}

extension JoinedSidecar {
    func bind(_ user: String, tier: String = "free") async throws -> SubjectBinding {
        let request = SubjectRequest(
            claims: SubjectRequest.Claims(subject: user, tier: tier, tenant: nil, roles: []),
            apiKeyHash: nil)
        return try await post(MeshPath.subject, request).decode(SubjectBinding.self)
    }
}
