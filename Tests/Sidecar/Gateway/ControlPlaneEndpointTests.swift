import Synchronization
import Testing
import WeirCore
import WeirMeshProtocol
import WeirPolicy

@testable import SidecarGateway

/// What the gateway does with requests that only the control plane can answer.
@Suite struct ControlPlaneEndpointTests {
    private final class Asked: Sendable {
        let messages = Mutex<[(UserOperation, UserRequest)]>([])
    }

    private struct NoMetrics: GatewayMetrics {
        func analysisEnded(type: String, tier: String, status: String, nanoseconds: UInt64) {}
        func observed(_ reasons: [Reason], tier: String) {}
        func stepsEnded(_ steps: [StepReport]) {}
        var vitals: GatewayVitals { GatewayVitals() }
    }

    private let asked = Asked()

    private func respond(
        _ method: String, _ path: String, query: String? = nil, body: String = "",
        roles: [String] = [], type: String? = "application/json",
        outcome: MeshOutcome<JSONValue> = .answered(["done": true])
    ) async throws -> GatewayAnswer {
        let snapshot = try GatewayFixture.snapshot()
        let binding = SubjectBinding(
            user: "alice", tenant: "acme", tier: "gold", roles: roles, accounts: [],
            preferences: nil, timeToLiveMilliseconds: 1_000)
        let asked = asked
        let service = GatewayService(
            configuration: GatewayConfiguration(
                verifier: try #require(TokenVerifier(keys: [TokenVerifierTests.key]))),
            dependencies: GatewayDependencies(
                snapshot: { snapshot }, bind: { _ in .bound(binding) },
                ledger: { _, _, _ in TestLedger() },
                ask: { operation, request in
                    asked.messages.withLock { $0.append((operation, request)) }
                    return outcome
                },
                idempotency: { _ in .unavailable },
                controlPlane: { ControlPlaneView(isReachable: true, silentMilliseconds: 0) },
                metrics: NoMetrics()))
        let token = TokenVerifierTests.token(payload: TokenVerifierTests.good)
        var fields = [GatewayField("authorization", "Bearer " + token)]
        if let type { fields.append(GatewayField("content-type", type)) }
        return await service.respond(
            to: GatewayRequest(
                id: "req_1", method: method, path: path, query: query, fields: fields,
                body: Array(body.utf8)),
            on: GatewayWorker(transport: TestTransport.healthy, clock: TestClock()) { _ in })
    }

    private func json(_ answer: GatewayAnswer) throws -> JSONValue {
        guard case .bytes(let bytes) = answer.body else {
            Issue.record("the answer is a stream")
            return .null
        }
        return try JSON.parse(bytes)
    }

    @Test func passesOnWhoAsksAndWhat() async throws {
        let answer = try await respond(
            "POST", "/budget/update", query: "a=1%2F2&b=x+y&c",
            body: #"{"monthly_limit_usd": "3"}"#,
            roles: ["admin"])
        #expect(answer.status == 200)
        #expect(try json(answer) == ["done": true])
        let (operation, request) = try #require(asked.messages.withLock { $0 }.first)
        #expect(operation == .budget)
        #expect(
            request.subject
                == .init(user: "alice", tenant: "acme", tier: "gold", roles: ["admin"]))
        #expect(request.parameters == ["a": "1/2", "b": "x y", "c": ""])
        #expect(request.body == ["monthly_limit_usd": "3"])
    }

    @Test func aReadingHasNoBody() async throws {
        let answer = try await respond("GET", "/agents/preferences", type: nil)
        #expect(answer.status == 200)
        #expect(answer.fields.contains(GatewayField("cache-control", "no-store")))
        #expect(asked.messages.withLock { $0 }.first?.1.body == nil)
    }

    @Test(arguments: ["a=%2", "a=%zz", "=1", "a=1&a=2", "a=%ff"])
    func aQueryThatCannotBeReadIsRefused(query: String) async throws {
        let answer = try await respond("GET", "/agents/preferences", query: query)
        #expect(answer.status == 400)
        #expect(asked.messages.withLock { $0 }.isEmpty)
    }

    @Test func theBodyMustBeJSON() async throws {
        #expect(try await respond("POST", "/budget/update", type: "text/plain").status == 415)
        #expect(try await respond("POST", "/budget/update", body: "{").status == 400)
        #expect(
            try json(try await respond("POST", "/budget/update", body: #"{"a":1,"a":2}"#))["reason"]
                == "duplicate_key")
        #expect(asked.messages.withLock { $0 }.isEmpty)
    }

    @Test func problemsComeBackWithTheirPointers() async throws {
        let refusal = MeshRefusal(
            reason: "invalid", detail: "The body has a problem.",
            problems: [Problem(path: "/user", message: "is wrong")])
        let answer = try await respond(
            "POST", "/budget/update", body: "{}", outcome: .refused(refusal))
        #expect(answer.status == 422)
        #expect(
            try json(answer)["errors"] == [["pointer": "/user", "detail": "is wrong"]])
    }

    @Test func withoutAControlPlaneTheCallerMayComeAgain() async throws {
        let answer = try await respond("GET", "/agents/preferences", outcome: .unavailable)
        #expect(answer.status == 503)
        #expect(try json(answer)["reason"] == "control_plane_lost")
        #expect(answer.fields.contains(GatewayField("retry-after", "1")))
    }

    @Test(arguments: [
        (UserRole.user, UserRole.operator, 403), (.operator, .operator, 0), (.admin, .operator, 0),
        (.user, .user, 0),
    ])
    func aRoleHasThoseBelowIt(role: UserRole, needed: UserRole, status: Int) {
        let path = needed == .operator ? "/stats" : "/analyze"
        var refused: GatewayRefusal?
        do throws(GatewayRefusal) {
            try EndpointAccess.check(role, for: path)
        } catch {
            refused = error
        }
        #expect(refused?.reason.status ?? 0 == status)
        if let refused {
            #expect(refused.detail == "This needs the role operator.")
            #expect(refused.members["role"] == "operator")
        }
    }
}
