import Foundation
import Testing
import WeirCore

/// Several instances of one agent: one is slow, one fails, and hardly anybody notices.
@Suite(.timeLimit(.minutes(4)), .serialized)
struct InstancesTests {
    private static let requests = 300
    private static let quickBreaker = "breaker: {consecutiveFailures: 5, open: 1s, openMax: 2s}"

    private func policy(in folder: TemporaryFolder) throws -> AcceptancePolicy {
        let policy = try AcceptancePolicy(in: folder)
        try policy.addFixedPriceTier(budget: "1")
        try policy.replace(
            "agents.yaml", "breaker: {consecutiveFailures: 5, open: 2s, openMax: 60s}",
            with: Self.quickBreaker)
        return policy
    }

    /// What is asked of three instances however they are reached: 0 is well, 1 slow, 2 fails.
    private func serves(
        _ instances: Instances, _ request: @escaping @Sendable (Int) async throws -> Int
    ) async throws {
        try await instances.setFault(1, "slow", argument: 150)
        try await instances.setFault(2, "fail", argument: 500)
        let succeeded = try await Instances.load(Self.requests, request)
        let counts = try await instances.counts()
        #expect(succeeded >= Self.requests * 95 / 100, "\(succeeded), \(counts)")
        #expect(counts[1] > 0 && counts[1] * 3 < counts[0], "the slow one gets least: \(counts)")
        #expect(counts[2] > 0 && counts[2] < Self.requests / 10, "\(counts)")
    }

    /// The third instance is well again: it comes back and takes its share.
    private func returns(
        _ instances: Instances, _ request: @escaping @Sendable (Int) async throws -> Int
    ) async throws {
        try await instances.setFault(2, "none")
        let before = try await instances.requests(2)
        try await eventually("the healed one serves again", within: .seconds(30)) {
            _ = try await Instances.load(20, request)
            return try await instances.requests(2) > before + 20
        }
        #expect(try await Instances.load(50, request) == 50)
    }

    @Test func `one sidecar balances over three instances`() async throws {
        try await Instances.run(3) { instances in
            try await withSidecar(before: instances) { endpoint, admin in
                let request: @Sendable (Int) async throws -> Int = { _ in
                    try await endpoint.post(
                        "/models/ProsusAI/finbert", #"{"inputs": "Profits rose."}"#
                    ).status
                }
                try await serves(instances, request)
                let address = "127.0.0.1:\(try instances.port(2))"
                let labels = #"{agent="finbert",endpoint="\#(address)""#
                try await eventually("the circuit of the failing one opens") {
                    _ = try await Instances.load(20, request)
                    let state = try await Instances.sample(admin, "circuit_breaker_state" + labels)
                    return state == "2"
                }
                #expect(
                    try await Instances.sample(
                        admin, "weir_upstream_failures_total" + labels + #",kind="5xx""#
                    )
                    .flatMap { Int($0) } ?? 0 >= 5)
                #expect(
                    try await admin.get("/readyz").json()["degraded"]?.array?.contains {
                        $0.string?.contains("circuit of \(address) is open (5xx)") == true
                    } == true)
                let well = #"{agent="finbert",endpoint="127.0.0.1:\#(try instances.port(0))""#
                #expect(
                    try await Instances.sample(admin, "circuit_breaker_state" + well) == "0")
                try await returns(instances, request)
                #expect(
                    try await Instances.sample(admin, "circuit_breaker_state" + labels) == "0")
                // One that dies is no failure for anybody: nothing was sent to it.
                await instances.agents[0].process.dispose()
                #expect(try await Instances.load(50, request) == 50)
            }
        }
    }

    private func withSidecar(
        before instances: Instances, _ test: (Endpoint, Endpoint) async throws -> Void
    ) async throws {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let compiled = folder.path("policy.json")
        try await policy(in: folder).compile(to: compiled)
        let (port, admin) = (try Ports.free(), try Ports.free())
        let upstreams = try instances.agents.indices.map {
            "http://127.0.0.1:\(try instances.port($0))"
        }
        let part = try MeshPart(
            "balancer", product: "weir-sidecar",
            arguments: [
                "--standalone", "--policy", compiled, "--agent", "finbert", "--listen",
                "127.0.0.1:\(port)", "--admin", "127.0.0.1:\(admin)", "--upstream",
                upstreams.joined(separator: ","), "--data", try folder.makeFolder("balancer"),
                "--workers", "2",
            ], environment: [:], folder: folder,
            isReady: { try await Endpoint(port: admin).get("/readyz").status == 200 })
        do {
            try await part.ready()
            try await test(Endpoint(port: port), Endpoint(port: admin))
        } catch {
            print(part.log)
            await part.process.dispose()
            throw error
        }
        await part.process.dispose()
    }

    /// A mesh with instances of FinBERT behind a sidecar each.
    private func withMesh(
        _ versions: String = "", arguments: [[String]] = [[], [], []],
        _ test: (Mesh, Instances) async throws -> Void
    ) async throws {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let policy = try policy(in: folder)
        if !versions.isEmpty {
            try policy.replace(
                "agents.yaml", "path: /models/ProsusAI/finbert\n",
                with: "path: /models/ProsusAI/finbert\n  versions: \(versions)\n")
        }
        let options = Mesh.Options(agents: ["risk"], policyFolder: policy.path)
        try await Instances.run(arguments.count) { instances in
            try await Mesh.run(options) { mesh in
                for index in arguments.indices {
                    try await mesh.addSidecar(
                        "finbert-\(index)", agent: "finbert", upstreams: [instances.port(index)],
                        arguments: arguments[index])
                }
                try await eventually("the gateway knows all sidecars") {
                    let probe = try await mesh.analyze(
                        AcceptancePolicy.sentimentOnly, user: "probe-\(UInt32.random(in: 0...999))",
                        tier: "acceptance")
                    return try await instances.counts().allSatisfy { $0 > 0 }
                        && probe.status == 200
                }
                try await test(mesh, instances)
            }
        }
    }

    @Test func `a gateway balances over three sidecars`() async throws {
        try await withMesh { mesh, instances in
            for agent in instances.agents { try await agent.reset("finbert") }
            let request: @Sendable (Int) async throws -> Int = { index in
                try await mesh.analyze(
                    AcceptancePolicy.sentimentOnly, user: "user-\(index % 10)", tier: "acceptance"
                ).status
            }
            try await serves(instances, request)
            try await returns(instances, request)
            // A sidecar that is killed is avoided, and what could not be sent to it goes elsewhere.
            try await mesh.part("finbert-0").process.killAtOnce()
            #expect(try await Instances.load(50, request) == 50)
            let serving = try await mesh.gatewayAdmin.get("/metrics").text
                .split(separator: "\n").filter { $0.hasPrefix("weir_sidecar_serving{") }
            #expect(serving.count { $0.hasSuffix(" 1") } >= 2, "\(serving)")
            // What it had not said yet it says in its next life.
            try mesh.part("finbert-0").startAgain()
            try await mesh.part("finbert-0").ready()
            for user in 0..<10 {
                let books = try await mesh.settledBooks(of: "user-\(user)")
                #expect(books.consumed == books.recorded)
            }
        }
    }

    @Test func `a version gets its share of the users, and they stay`() async throws {
        let versions = "[{name: stable, weight: 90}, {name: canary, weight: 10}]"
        let arguments = [["--agent-version", "stable"], ["--agent-version", "canary"]]
        try await withMesh(versions, arguments: arguments) { mesh, instances in
            let first = try await versionsOfUsers(mesh)
            let canary = first.count { $0 == "canary" }
            // 200 users at 10 %: four standard deviations around 20.
            #expect((4...37).contains(canary), "\(canary) of \(first.count)")
            #expect(first.allSatisfy { $0 != nil })
            #expect(try await versionsOfUsers(mesh) == first, "everybody keeps the version")
            let calls = try await Instances.sample(
                mesh.gatewayAdmin, #"weir_agent_calls_total{agent="finbert",version="canary"}"#)
            #expect(calls.flatMap { Int($0) } ?? 0 >= 2 * canary)
            let sidecars = try await mesh.api.get("/v1/sidecars", headers: mesh.adminHeaders).json()
            #expect(
                sidecars["sidecars"]?.array?.compactMap { $0["agent_version"]?.string }.sorted()
                    == ["canary", "stable"])

            // A canary that is gone leaves its users to the others.
            try await mesh.part("finbert-1").process.killAtOnce()
            #expect(try await versionsOfUsers(mesh).allSatisfy { $0 == "stable" })
        }
    }

    /// Which version answered each of 200 users.
    private func versionsOfUsers(_ mesh: Mesh) async throws -> [String?] {
        var versions: [String?] = []
        for user in 0..<200 {
            let answer = try await mesh.analyze(
                AcceptancePolicy.sentimentOnly, user: "user-\(user)", tier: "acceptance")
            try #require(answer.status == 200, "\(answer.text)")
            let attempts = try answer.json()["steps"]?.array?.first?["attempts"]?.array
            versions.append(attempts?.last?["version"]?.string)
        }
        return versions
    }
}
