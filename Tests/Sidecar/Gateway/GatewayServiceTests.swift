import Synchronization
import Testing
import WeirCore
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

@testable import SidecarGateway

private final class TestMetrics: GatewayMetrics {
    let seen = Mutex<[String]>([])

    func analysisEnded(type: String, tier: String, status: String, nanoseconds: UInt64) {
        seen.withLock { $0.append("\(type) \(tier) \(status)") }
    }

    let watched = Mutex<[String]>([])

    func observed(_ reasons: [Reason], tier: String) {
        watched.withLock { $0 += reasons.map { "\(tier) \($0.name)" } }
    }
    func stepsEnded(_ steps: [StepReport]) {}
    var vitals: GatewayVitals { GatewayVitals() }
}

/// A service with the worker that its requests come in on.
private struct TestGateway: Sendable {
    let service: GatewayService
    let worker: GatewayWorker
    let sight: MeshSight

    func respond(to request: GatewayRequest) async -> GatewayAnswer {
        await service.respond(to: request, on: worker)
    }

    func look(_ snapshot: GatewaySnapshot) {
        sight.look(
            snapshot, nowNanoseconds: worker.clock.nowNanoseconds, at: worker.clock.now)
    }
}

@Suite(.timeLimit(.minutes(1))) struct GatewayServiceTests {
    static let id = "req_01ARZ3NDEKTSV4RRFFQ69G5FAV"
    private let metrics = TestMetrics()
    private let body = #"{"analysis_type": "news", "data": {"text": "up"}}"#

    private func service(
        ledger: TestLedger = TestLedger(), transport: any AgentTransport = TestTransport.healthy,
        binding: CallerBinding? = nil, snapshot: GatewaySnapshot?? = nil, analysesMax: Int = 10,
        reachable: Bool = true, asked: @escaping @Sendable (SubjectRequest) -> Void = { _ in }
    ) throws -> TestGateway {
        let snapshot = try snapshot ?? GatewayFixture.snapshot()
        let verifier = try #require(TokenVerifier(keys: [TokenVerifierTests.key]))
        let bound = CallerBinding.bound(
            SubjectBinding(
                user: "alice", tenant: nil, tier: "gold", roles: [], accounts: [], preferences: nil,
                timeToLiveMilliseconds: 1_000))
        let sight = MeshSight()
        let service = GatewayService(
            configuration: GatewayConfiguration(
                verifier: verifier, origins: AllowedOrigins(["https://app.example"]),
                analysesMax: analysesMax),
            dependencies: GatewayDependencies(
                snapshot: { snapshot },
                bind: { request in
                    asked(request)
                    return binding ?? bound
                },
                ledger: { _, _, _ in ledger }, ask: { _, _ in .unavailable },
                idempotency: { _ in .unavailable },
                controlPlane: {
                    ControlPlaneView(isReachable: reachable, silentMilliseconds: 12)
                }, sight: sight, metrics: metrics))
        let worker = GatewayWorker(transport: transport, clock: TestClock()) { _ in }
        return TestGateway(service: service, worker: worker, sight: sight)
    }

    private func post(
        _ text: String, token: String? = TokenVerifierTests.token(payload: TokenVerifierTests.good),
        type: String = "application/json", extra: [GatewayField] = []
    ) -> GatewayRequest {
        var fields = [GatewayField("content-type", type)] + extra
        if let token { fields.append(GatewayField("authorization", "Bearer " + token)) }
        return GatewayRequest(
            id: Self.id, method: "POST", path: "/analyze", fields: fields, body: Array(text.utf8))
    }

    private func value(_ answer: GatewayAnswer, _ name: String) -> String? {
        answer.fields.first { $0.name == name }?.value
    }

    @Test func answersInTheShapeOfTheContract() async throws {
        let ledger = TestLedger(limit: NanoUSD(5_000_000_000), requestsMax: 100)
        let answer = try await service(ledger: ledger).respond(to: post(body))
        #expect(answer.status == 200)
        let json = try JSON.parse(answer.bytes)
        #expect(
            json.object?.keys == [
                "id", "analysis_type", "status", "steps", "cost", "latency_ms", "policy_version",
            ])
        #expect(json["status"] == "complete")
        #expect(json["policy_version"] == 17)
        #expect(json["id"]?.string == Self.id)
        // The listener's exchange names the request, once, in every answer.
        #expect(value(answer, "weir-request-id") == nil)
        #expect(
            json["cost"] == [
                "total_usd": "0.000620", "budget_remaining_usd": "4.999380",
                "resets_at": "2026-12-01T00:00:00Z",
            ])
        let step = try #require(json["steps"]?.array?.first)
        #expect(
            step.object?.keys == [
                "name", "agent", "model", "status", "result", "latency_ms", "cost_usd",
                "cost_source", "attempts",
            ])
        #expect(step["cost_usd"] == "0.000120")
        #expect(
            step["attempts"] == [
                [
                    "agent": "mood", "model": "mood-1", "outcome": "ok", "cost_usd": "0.000120",
                    "cost_source": "reported",
                ]
            ])
        for (name, expected) in [
            ("weir-decision", "admitted"), ("weir-cost-usd", "0.000620"),
            ("weir-budget-remaining-usd", "4.999380"), ("weir-policy-version", "17"),
            ("weir-agent", "mood, writer"), ("ratelimit-policy", #""daily";q=100;w=86400"#),
            ("ratelimit", #""daily";r=99;t=34800"#), ("content-type", "application/json"),
        ] {
            #expect(value(answer, name) == expected)
        }
        #expect(metrics.seen.withLock { $0 } == ["news gold complete"])
    }

    @Test func theTagsOfARequestAreAskedForAndThoseOfItsBindingTravel() async throws {
        let asked = Mutex<[SubjectRequest]>([])
        let travelled = Mutex<Set<String>>([])
        let healthy = TestTransport.healthy
        let transport = TestTransport { call, delegation in
            travelled.withLock { _ = $0.insert(delegation.tags.text) }
            return await healthy.react(call, delegation)
        }
        let bound = CallerBinding.bound(
            SubjectBinding(
                user: "alice", tenant: nil, tier: "gold", roles: [], accounts: [], preferences: nil,
                timeToLiveMilliseconds: 1_000, tags: try #require(Tags(list: "key:1,launch"))))
        let gateway = try service(
            transport: transport, binding: bound,
            asked: { request in
                asked.withLock { $0.append(request) }
            })
        let token = TokenVerifierTests.token(
            payload: #"{"sub":"alice","exp":1795360000,"tags":["mine"]}"#)
        let request = post(
            body, token: token, extra: [GatewayField("weir-tags", "team:search, launch")])
        #expect(await gateway.respond(to: request).status == 200)
        #expect(asked.withLock { $0.map(\.tags) } == [["launch", "team:search"]])
        #expect(asked.withLock { $0.map(\.claims?.tags) } == [["mine"]])
        #expect(travelled.withLock { $0 } == ["key:1,launch"])
    }

    @Test(arguments: [["a b"], [""], ["a", "b"], ["1,2,3,4,5,6,7,8,9"]])
    func tagsThatAreNoneAreRefusedBeforeAnybodyIsAsked(_ values: [String]) async throws {
        let gateway = try service(asked: { _ in Issue.record("somebody was asked") })
        let fields = values.map { GatewayField("weir-tags", $0) }
        let answer = await gateway.respond(to: post(body, extra: fields))
        #expect(answer.status == 422)
        #expect(value(answer, "weir-decision") == "invalid")
    }

    @Test func aUserAboveTheRateOfTheTierIsToldWhenToComeBack() async throws {
        var policy = try GatewayFixture.policy()
        policy.tiers["gold"]?.rateLimit = .init(requestsPerSecond: 0.5, burst: 2)
        policy.tiers["gold"]?.concurrentRequestsMax = nil
        let snapshot = try GatewayFixture.snapshot(policy)
        let ledger = TestLedger(limit: NanoUSD(5_000_000_000), requestsMax: 2)
        let service = try service(ledger: ledger, snapshot: snapshot)
        for _ in 0..<2 { #expect(await service.respond(to: post(body)).status == 200) }
        let answer = await service.respond(to: post(body))
        // The third daily request would be refused as well: nothing was counted for this one.
        #expect(answer.status == 429)
        #expect(value(answer, "weir-decision") == "rate_limited")
        #expect(value(answer, "retry-after") == "2")
        #expect(value(answer, "ratelimit-policy") == #""tier";q=2;w=4"#)
        #expect(value(answer, "ratelimit") == #""tier";r=0;t=2"#)
        #expect(try JSON.parse(answer.bytes)["scope"] == "instance")
        #expect(metrics.seen.withLock { $0.last } == "news gold rate_limited")
        policy.tiers["gold"]?.observe = true
        let observing = try self.service(snapshot: try GatewayFixture.snapshot(policy))
        for _ in 0..<2 { #expect(await observing.respond(to: post(body)).status == 200) }
        let watched = await observing.respond(to: post(body))
        #expect(watched.status == 200)
        #expect(value(watched, "weir-decision") == "observed:rate_limited")
        #expect(metrics.watched.withLock { $0 } == ["gold rate_limited"])
    }

    @Test func aBudgetRefusalNamesTheAccountAndWhatWasSpent() async throws {
        let ledger = TestLedger(limit: NanoUSD(120_000))
        let answer = try await service(ledger: ledger).respond(to: post(body))
        #expect(answer.status == 402)
        #expect(value(answer, "content-type") == "application/problem+json")
        #expect(value(answer, "weir-decision") == "budget_exhausted")
        #expect(value(answer, "weir-cost-usd") == "0.000120")
        let json = try JSON.parse(answer.bytes)
        #expect(json["reason"] == "budget_exhausted")
        #expect(json["status"] == 402)
        #expect(json["step"] == "prose")
        #expect(json["account"] == "usd/user/2026-11/alice")
        #expect(json["resets_at"] == "2026-12-01T00:00:00Z")
        #expect(json["cost"]?["total_usd"] == "0.000120")
        #expect(json["steps"]?.array?.count == 2)
        #expect(metrics.seen.withLock { $0 } == ["news gold budget_exhausted"])
    }

    @Test func aDailyQuotaIsTooManyRequests() async throws {
        let service = try service(ledger: TestLedger(requestsMax: 1))
        #expect(await service.respond(to: post(body)).status == 200)
        let answer = await service.respond(to: post(body))
        #expect(answer.status == 429)
        #expect(value(answer, "weir-decision") == "quota_exhausted")
        #expect(value(answer, "retry-after") == "34800")
        #expect(try JSON.parse(answer.bytes)["account"] == "requests/user/2026-11-22/alice")
    }

    @Test func aRateOfTheWholeMeshSaysItsQuotaAndWhenTheMinuteEnds() async throws {
        let minute = AccountKey(
            unit: .requests, scope: .user, period: Period(.minute, at: TestClock.unix), id: "alice")
        var refusal = LedgerRefusal(
            reason: .rateLimited, account: minute, resetsAt: minute.period.end, limit: NanoUSD(60))
        let late = UnixTime(milliseconds: TestClock.unix.milliseconds + 22_900)
        var answer = GatewayRefusal(refusal, now: late)
        #expect(answer.retryAfterSeconds == 38)
        #expect(answer.members["scope"] == "mesh")
        #expect(answer.members["account"] == "requests/user/2026-11-22T14:20/alice")
        #expect(
            answer.fields.map { "\($0.name): \($0.value)" } == [
                #"ratelimit-policy: "requests-per-minute";q=60;w=60"#,
                #"ratelimit: "requests-per-minute";r=0;t=38"#,
            ])
        // Set aside at another gateway: it may come back before.
        refusal.resetsAt = nil
        answer = GatewayRefusal(refusal, now: late)
        #expect(answer.retryAfterSeconds == 1 && answer.members["resets_at"] == nil)
    }

    @Test func stepsAboveTheTokensOfTheirMinuteAreTooManyRequests() async throws {
        let answer = try await service(ledger: TestLedger(tokensMax: 0)).respond(to: post(body))
        #expect(answer.status == 429)
        #expect(value(answer, "weir-decision") == "rate_limited")
        #expect(value(answer, "retry-after") == "60")
        #expect(value(answer, "ratelimit-policy") == #""tokens-per-minute";q=0;w=60"#)
        let problem = try JSON.parse(answer.bytes)
        #expect(problem["account"] == "tokens/user/2026-11-22T14:20/alice")
        #expect(problem["scope"] == "mesh" && problem["step"] != nil)
        #expect(metrics.seen.withLock { $0.last?.hasSuffix("rate_limited") } == true)
    }

    @Test(arguments: [
        (Reason.circuitOpen, 503), (.overloaded, 503), (.rateLimited, 503), (.forbidden, 502),
        (.deadline, 504), (.upstreamProtocol, 502), (.budgetExhausted, 402),
    ])
    func whatASidecarRefuses(reason: Reason, status: Int) async throws {
        let transport = TestTransport { _, _ in .refused(reason) }
        let answer = try await service(transport: transport).respond(to: post(body))
        #expect(answer.status == status)
        #expect(value(answer, "retry-after") == (status == 503 ? "1" : nil))
    }

    @Test(arguments: [
        ("{", 400, "malformed"), (#"{"a":1,"a":2}"#, 400, "duplicate_key"), ("[]", 422, "invalid"),
        ("{}", 422, "invalid"), (#"{"analysis_type": "other", "data": {}}"#, 422, "invalid"),
        (#"{"analysis_type": "news", "data": {"text": ""}}"#, 422, "invalid"),
        (#"{"analysis_type": "news", "data": {"text": "x"}, "more": 1}"#, 422, "invalid"),
    ])
    func wrongBodies(text: String, status: Int, reason: String) async throws {
        let answer = try await service().respond(to: post(text))
        #expect(answer.status == status)
        #expect(try JSON.parse(answer.bytes)["reason"] == .string(reason))
    }

    @Test func everyProblemOfABodyIsReported() async throws {
        let text = """
            {"analysis_type": "news", "data": {"text": 1, "x": 2}, "options":
             {"max_cost_usd": 1, "timeout_ms": 0, "agents": {"mood": "risk", "q": "r"}, "z": 1}}
            """
        let answer = try await service().respond(to: post(text))
        let errors = try #require(try JSON.parse(answer.bytes)["errors"]?.array)
        #expect(
            Set(errors.compactMap { $0["pointer"]?.string }) == [
                "/data/text", "/data/x", "/options/max_cost_usd", "/options/timeout_ms",
                "/options/agents/mood", "/options/agents/q", "/options/z",
            ])
    }

    /// Agents are named by their id, a model or an alias; what the step does not have is refused.
    @Test(
        arguments: [
            (#"{"prose": "writer"}"#, "writer"), (#"{"prose": "big"}"#, "writer"),
            (#"{"prose": "grand"}"#, "writer"), (#"{"prose": "scribe"}"#, nil),
            (#"{"prose": "nobody"}"#, nil), (#"{"prose": 1}"#, nil),
        ] as [(String, String?)])
    func agentsMayBeNamedByAliases(agents: String, served: String?) async throws {
        var policy = try GatewayFixture.policy()
        policy.agents["writer"]?.models[0].aliases = ["grand"]
        let text = """
            {"analysis_type": "news", "data": {"text": "up"}, "options": {"agents": \(agents)}}
            """
        let answer = try await service(snapshot: try GatewayFixture.snapshot(policy))
            .respond(to: post(text))
        let json = try JSON.parse(answer.bytes)
        guard let served else {
            #expect(answer.status == 422)
            #expect(json["errors"]?.array?.first?["pointer"] == "/options/agents/prose")
            return
        }
        #expect(json["steps"]?.array?.last?["agent"]?.string == served)
    }

    @Test func whoIsNotKnownIsRefused() async throws {
        let service = try service()
        let expired = TokenVerifierTests.token(payload: #"{"sub":"a","exp":1}"#)
        for (token, reason) in [
            (nil, "unauthenticated"), ("x", "unauthenticated"),
            (expired, "token_expired"),
        ] as [(String?, String)] {
            let answer = await service.respond(to: post(body, token: token))
            #expect(answer.status == 401)
            #expect(value(answer, "weir-decision") == reason)
            #expect(value(answer, "www-authenticate") == "Bearer")
        }
        let twice = post(body, extra: [GatewayField("authorization", "Bearer x")])
        #expect(await service.respond(to: twice).status == 401)
        #expect(await service.respond(to: post(body, type: "text/plain")).status == 415)
        let charset = post(body, type: "Application/JSON; charset=utf-8")
        #expect(await service.respond(to: charset).status == 200)
    }

    @Test func bindingsDecide() async throws {
        let refused = try service(binding: .refused(.forbidden, "revoked"))
        #expect(await refused.respond(to: post(body)).status == 403)
        let away = try service(binding: .unavailable)
        let answer = await away.respond(to: post(body))
        #expect(answer.status == 503)
        #expect(value(answer, "weir-decision") == "control_plane_lost")
        #expect(value(answer, "retry-after") == "1")
    }

    @Test func withoutAPolicyNothingIsServed() async throws {
        let service = try service(snapshot: .some(nil))
        #expect(await service.respond(to: post(body)).status == 503)
        let health = GatewayRequest(
            id: Self.id, method: "GET", path: "/health", fields: [], body: [])
        #expect(await service.respond(to: health).status == 503)
    }

    @Test func callsAtOnceHaveTheirLimits() async throws {
        let gate = AsyncStream.makeStream(of: Void.self)
        let entered = AsyncStream.makeStream(of: Void.self)
        let transport = TestTransport { call, delegation in
            entered.continuation.yield()
            for await _ in gate.stream { break }
            return await TestTransport.healthy.react(call, delegation)
        }
        let service = try service(transport: transport)
        async let first = service.respond(to: post(body))
        for await _ in entered.stream { break }
        let second = await service.respond(to: post(body))
        #expect(second.status == 429)
        #expect(value(second, "weir-decision") == "concurrency")
        gate.continuation.finish()
        #expect(await first.status == 200)
        let third = await service.respond(to: post(body))
        #expect(third.status == 200, "\(String(decoding: third.bytes, as: UTF8.self))")
        let full = try self.service(analysesMax: 0)
        let refused = await full.respond(to: post(body))
        #expect(refused.status == 503)
        #expect(value(refused, "weir-decision") == "overloaded")
    }

    @Test func routesAndMethods() async throws {
        let service = try service(reachable: false)
        func ask(_ method: String, _ path: String, _ fields: [GatewayField] = [])
            async -> GatewayAnswer
        {
            await service.respond(
                to: GatewayRequest(
                    id: Self.id, method: method, path: path, fields: fields, body: []))
        }
        #expect(await ask("GET", "/nothing").status == 404)
        let wrong = await ask("GET", "/analyze")
        #expect(wrong.status == 405)
        #expect(value(wrong, "allow") == "POST")
        let health = await ask("GET", "/health")
        #expect(health.status == 200)
        let json = try JSON.parse(health.bytes)
        #expect(json["status"] == "degraded")
        #expect(json["control_plane"]?["reachable"] == false)
        #expect(json["policy_version"] == 17)
        let head = await ask("HEAD", "/health")
        #expect(head.status == 200 && head.bytes.isEmpty)
    }

    @Test func agentsAreShownInFullToThoseWithAToken() async throws {
        let service = try service()
        service.look(try GatewayFixture.snapshot(without: ["mood"]))
        func ask(_ fields: [GatewayField] = []) async -> GatewayAnswer {
            await service.respond(
                to: GatewayRequest(
                    id: Self.id, method: "GET", path: "/agents/health", fields: fields, body: []))
        }
        let all = await ask()
        #expect(all.status == 200)
        #expect(
            try JSON.parse(all.bytes) == [
                "agents": [
                    ["name": "mood", "state": "unavailable"], ["name": "risk", "state": "serving"],
                    ["name": "scribe", "state": "serving"], ["name": "writer", "state": "serving"],
                ]
            ])
        let token = TokenVerifierTests.token(payload: TokenVerifierTests.good)
        let detail = await ask([GatewayField("authorization", "Bearer " + token)])
        let agents = try #require(try JSON.parse(detail.bytes)["agents"]?.array)
        #expect(agents.map { $0["availability"]?.double } == [0, 1, 1, 1])
        #expect(agents[1]["endpoints"]?.array?.first?["endpoint"] == "127.0.0.1:9000")
        #expect(await ask([GatewayField("authorization", "Bearer nonsense")]).status == 401)
    }

    @Test func theServerAsAWholeSaysWhatItAllows() async throws {
        let answer = try await service().respond(
            to: GatewayRequest(id: Self.id, method: "OPTIONS", path: "*", fields: [], body: []))
        #expect(answer.status == 204)
        let allowed = (value(answer, "allow") ?? "").split(separator: ", ")
        #expect(allowed.contains("GET") && allowed.contains("POST") && allowed.last == "OPTIONS")
        #expect(Set(allowed).count == allowed.count)
    }

    @Test func originsAreAllowedByName() async throws {
        let service = try service()
        func ask(_ origin: String) async -> GatewayAnswer {
            await service.respond(
                to: GatewayRequest(
                    id: Self.id, method: "OPTIONS", path: "/analyze",
                    fields: [
                        GatewayField("origin", origin),
                        GatewayField("access-control-request-method", "POST"),
                    ], body: []))
        }
        let allowed = await ask("https://app.example")
        #expect(allowed.status == 204)
        #expect(value(allowed, "access-control-allow-origin") == "https://app.example")
        #expect(value(allowed, "access-control-allow-methods") == "POST")
        let other = await ask("https://evil.example")
        #expect(value(other, "access-control-allow-origin") == nil)
        #expect(value(other, "vary") == "origin")
    }
}

@Suite struct TraceContextTests {
    private let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

    @Test func goesOnWithTheCallersTrace() throws {
        let context = try #require(TraceContext(parent))
        let child = TraceContext(parent: context, random: [UInt8](repeating: 0xAB, count: 24))
        #expect(child.header == "00-4bf92f3577b34da6a3ce929d0e0e4736-abababababababab-01")
    }

    @Test func beginsATrace() {
        let context = TraceContext(parent: nil, random: [UInt8](repeating: 0xCD, count: 24))
        #expect(TraceContext(context.header) == context)
    }

    @Test(arguments: [
        "", "00", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
        "00-4bf92f3577b34da6a3ce929d0e0e473-600f067aa0ba902b7-01",
    ])
    func othersBeginANewOne(header: String) {
        #expect(TraceContext(header) == nil)
    }
}
