import Foundation
import Synchronization
import WeirCore

/// A whole mesh of real processes on the loopback: redis-server, control plane, the sample agents
/// each behind its own sidecar, and a gateway. Everything lives in one temporary folder and ends
/// with the test, however the test ends.
final class Mesh: Sendable {
    struct Options: Sendable {
        var agents = SampleAgentsProcess.names
        /// As `weir-sample-agents --latency`.
        var latency = "none"
        /// Documents to apply; the project's own by default.
        var policyFolder = Products.root.appendingPathComponent("manifests/policy").path
        /// Settings of single parts by the part's name ("gateway", "finbert", "control-plane").
        var environment: [String: [String: String]] = [:]
        var arguments: [String: [String]] = [:]
        /// Agents that may call others through their sidecars.
        var callingAgents: Set<String> = []
    }

    static let adminToken = "test-administrator-token-0123456789"
    static let joinToken = "test-join-token-0123456789abcdef"
    static let userKey = "test-jwt-secret-key-0123456789abcdef"

    let folder: TemporaryFolder
    let options: Options
    let agents: SampleAgentsProcess
    let controlPlane: MeshPart
    let apiPort: UInt16
    let meshPort: UInt16
    let gatewayPort: UInt16
    let gatewayAdminPort: UInt16
    private let redisNow: Mutex<PrivateRedis>
    private let sidecarPorts: [String: (listen: UInt16, admin: UInt16)]
    private let outboundPorts: [String: UInt16]
    private let parts = Mutex<[String: MeshPart]>([:])

    var redis: PrivateRedis { redisNow.withLock { $0 } }
    var gateway: Endpoint { Endpoint(port: gatewayPort) }
    var gatewayAdmin: Endpoint { Endpoint(port: gatewayAdminPort) }
    var api: Endpoint { Endpoint(port: apiPort) }
    var adminHeaders: [String: String] { ["authorization": "Bearer " + Self.adminToken] }

    /// Starts a mesh, runs the test on it, and takes it down. What the programs wrote is printed
    /// when the test throws; `logs` gives it to an expectation that does not.
    static func run(_ options: Options = Options(), _ test: (Mesh) async throws -> Void)
        async throws
    {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let redis = try await PrivateRedis(folder: folder)
        let agents: SampleAgentsProcess
        let mesh: Mesh
        do {
            agents = try await SampleAgentsProcess(
                options.agents, latency: options.latency, folder: folder)
        } catch {
            await redis.process.dispose()
            throw error
        }
        do {
            mesh = try Mesh(options, redis: redis, agents: agents, folder: folder)
        } catch {
            await agents.process.dispose()
            await redis.process.dispose()
            throw error
        }
        do {
            try await mesh.start()
            try await test(mesh)
        } catch {
            print(mesh.logs)
            await mesh.dispose()
            throw error
        }
        await mesh.dispose()
    }

    private init(
        _ options: Options, redis: PrivateRedis, agents: SampleAgentsProcess,
        folder: TemporaryFolder
    ) throws {
        self.folder = folder
        self.options = options
        self.agents = agents
        redisNow = Mutex(redis)
        apiPort = try Ports.free()
        meshPort = try Ports.free()
        gatewayPort = try Ports.free()
        gatewayAdminPort = try Ports.free()
        sidecarPorts = try options.agents.reduce(into: [:]) {
            $0[$1] = (listen: try Ports.free(), admin: try Ports.free())
        }
        outboundPorts = try options.callingAgents.reduce(into: [:]) { $0[$1] = try Ports.free() }
        let name = "control-plane"
        let apiPort = apiPort
        controlPlane = try MeshPart(
            name, product: "weir-control-plane",
            arguments: [
                "--api", "127.0.0.1:\(apiPort)", "--mesh", "127.0.0.1:\(meshPort)",
                "--redis", redis.url, "--data", try folder.makeFolder(name),
            ] + (options.arguments[name] ?? []),
            environment: [
                "WEIR_ADMIN_TOKEN": Self.adminToken, "WEIR_JOIN_TOKEN": Self.joinToken,
            ].merging(options.environment[name] ?? [:]) { $1 },
            folder: folder,
            isReady: {
                _ = try RawConnection(port: apiPort)
                return true
            })
    }

    private func start() async throws {
        try await controlPlane.ready()
        // It listens before it has reached its stores, and has no epoch to count policies in then.
        try await eventually("the stores are open") { try await api.get("/readyz").status == 200 }
        try await apply(options.policyFolder)
        for agent in options.agents { try startSidecar(agent) }
        try await agentsHaveJoined()
        try startGateway()
        try await gatewayKnowsAgents()
    }

    private func startSidecar(_ agent: String) throws {
        guard let ports = sidecarPorts[agent] else { return }
        let outbound = outboundPorts[agent].map {
            ["--outbound", "127.0.0.1:\($0)", "--gateway", "http://127.0.0.1:\(gatewayPort)"]
        }
        try startPart(
            agent, adminPort: ports.admin,
            arguments: [
                "--agent", agent, "--listen", "127.0.0.1:\(ports.listen)",
                "--upstream", "http://127.0.0.1:\(try agents.port(agent))",
            ] + (outbound ?? []), environment: [:])
    }

    /// One more sidecar, which is ready when this returns and ends with the mesh: before other
    /// instances of an agent than the mesh's own. Gives its admin listener.
    @discardableResult
    func addSidecar(
        _ name: String, agent: String, upstreams: [UInt16], arguments: [String] = []
    ) async throws -> Endpoint {
        let admin = try Ports.free()
        try startPart(
            name, adminPort: admin,
            arguments: [
                "--agent", agent, "--listen", "127.0.0.1:\(try Ports.free())", "--upstream",
                upstreams.map { "http://127.0.0.1:\($0)" }.joined(separator: ","),
            ] + arguments, environment: [:])
        try await part(name).ready()
        return Endpoint(port: admin)
    }

    private func startGateway() throws {
        try startGateway("gateway", adminPort: gatewayAdminPort, port: gatewayPort)
    }

    private func startGateway(_ name: String, adminPort: UInt16, port: UInt16) throws {
        try startPart(
            name, adminPort: adminPort,
            arguments: ["--role", "gateway", "--listen", "127.0.0.1:\(port)"],
            environment: ["JWT_SECRET_KEY": Self.userKey])
    }

    /// One more gateway, which knows every agent when this returns and ends with the mesh.
    func addGateway(_ name: String) async throws -> Endpoint {
        let port = try Ports.free()
        try startGateway(name, adminPort: try Ports.free(), port: port)
        let endpoint = Endpoint(port: port)
        try await part(name).ready()
        try await eventually("\(name) knows every agent", within: .seconds(15)) {
            try await lackingAgents(at: endpoint).isEmpty
        }
        return endpoint
    }

    private func startPart(
        _ name: String, adminPort: UInt16, arguments: [String], environment: [String: String]
    ) throws {
        let environment =
            environment
            .merging(["WEIR_JOIN_TOKEN": Self.joinToken]) { $1 }
            .merging(options.environment[name] ?? [:]) { $1 }
        let part = try MeshPart(
            name, product: "weir-sidecar",
            arguments: arguments + [
                "--admin", "127.0.0.1:\(adminPort)",
                "--control-plane", "http://127.0.0.1:\(meshPort)",
                "--data", try folder.makeFolder(name),
            ] + (options.arguments[name] ?? []),
            environment: environment, folder: folder,
            isReady: { try await Endpoint(port: adminPort).get("/readyz").status == 200 })
        parts.withLock { $0[name] = part }
    }

    /// Kills redis-server and starts it again on its data; `while` runs in between.
    func restartRedis(while absent: () async throws -> Void = {}) async throws {
        try await redis.process.killAtOnce()
        try await absent()
        let next = try await redis.restarted()
        redisNow.withLock { $0 = next }
    }

    /// Ends everything but the agents as an operator would, each with exit code 0, and starts it
    /// again on the same data.
    func restartEverything() async throws {
        let gateway = try part("gateway")
        let others = parts.withLock { Array($0.values) }.filter { $0 !== gateway }
        for part in [gateway] + others + [controlPlane] {
            let status = try await part.process.terminate()
            guard status == 0 else {
                throw TestProcess.Failed(description: "\(part.name) ended with \(status)")
            }
        }
        try await redis.process.terminate()
        let next = try await redis.restarted()
        redisNow.withLock { $0 = next }
        try controlPlane.startAgain()
        try await controlPlane.ready()
        for part in others { try part.startAgain() }
        try await agentsHaveJoined()
        try gateway.startAgain()
        try await gatewayKnowsAgents()
    }

    /// A sidecar serves from its disk before the control plane knows of it again; a gateway that
    /// comes now is told of all of them with its first policy.
    private func agentsHaveJoined() async throws {
        for part in parts.withLock({ Array($0.values) }) where part.name != "gateway" {
            try await part.ready()
        }
        try await eventually("the sidecars have joined", within: .seconds(15)) {
            let members = try await api.get("/v1/sidecars", headers: adminHeaders).json()
            let serving = (members["sidecars"]?.array ?? []).filter {
                $0["connected"]?.bool == true && $0["health"]?["state"]?.string != "draining"
            }
            return Set(options.agents).isSubset(of: serving.compactMap { $0["agent"]?.string })
        }
    }

    /// Whoever calls before the gateway has heard of an agent's sidecar is refused (`no_endpoint`).
    private func gatewayKnowsAgents() async throws {
        try await part("gateway").ready()
        try await eventually("the gateway knows every agent", within: .seconds(15)) {
            let health = try await gateway.get("/health").json()
            guard health["control_plane"]?["reachable"]?.bool == true else { return false }
            return try await lackingAgents().isEmpty
        }
    }

    /// What the gateway says it has no endpoint for, or no policy yet.
    func lackingAgents() async throws -> [String] { try await lackingAgents(at: gateway) }

    private func lackingAgents(at gateway: Endpoint) async throws -> [String] {
        let lacks = try await gateway.get("/health").json()["degraded"]?.array ?? []
        return lacks.compactMap { lack in
            guard ["no_endpoint", "none received yet"].contains(lack["reason"]?.string),
                let name = lack["part"]?.string?.split(separator: "/").last.map(String.init)
            else { return nil }
            return name == "policy" || options.agents.contains(name) ? name : nil
        }
    }

    /// The gateway ("gateway") or the sidecar of an agent.
    func part(_ name: String) throws -> MeshPart {
        guard let part = parts.withLock({ $0[name] }) else {
            throw TestProcess.Failed(description: "the mesh has no \(name)")
        }
        return part
    }

    func sidecar(_ agent: String) throws -> Endpoint { Endpoint(port: try ports(agent).listen) }

    /// Where the agent makes its own calls.
    func outbound(_ agent: String) throws -> Endpoint {
        Endpoint(port: UInt16(try outboundPort(agent)))
    }

    func outboundPort(_ agent: String) throws -> Int {
        guard let port = outboundPorts[agent] else {
            throw TestProcess.Failed(description: "\(agent) calls nobody")
        }
        return Int(port)
    }

    func sidecarAdmin(_ agent: String) throws -> Endpoint {
        Endpoint(port: try ports(agent).admin)
    }

    private func ports(_ agent: String) throws -> (listen: UInt16, admin: UInt16) {
        guard let ports = sidecarPorts[agent] else {
            throw TestProcess.Failed(description: "the mesh has no sidecar for \(agent)")
        }
        return ports
    }

    /// The data folder of a part.
    func data(_ name: String) -> String { folder.path(name) }

    /// `weir apply --wait`, with the words of those who refused when it fails.
    @discardableResult
    func apply(_ path: String, wait: Bool = false) async throws -> String {
        try await weir(["apply", "-f", path] + (wait ? ["--wait"] : []))
    }

    /// Runs the command-line tool as an administrator.
    @discardableResult
    func weir(_ arguments: [String]) async throws -> String {
        let result = try await Tools.run(
            Products.path("weir"), ["--server", "http://127.0.0.1:\(apiPort)"] + arguments,
            environment: ["WEIR_ADMIN_TOKEN": Self.adminToken])
        guard result.status == 0 else {
            throw TestProcess.Failed(
                description: "weir \(arguments.joined(separator: " ")): \(result.output)")
        }
        return result.output
    }

    func userHeaders(_ user: String, tier: String) -> [String: String] {
        ["authorization": "Bearer " + TestToken.mint(user: user, tier: tier, key: Self.userKey)]
    }

    func analyze(
        _ body: String, user: String = "alice", tier: String = "premium",
        headers: [String: String] = [:]
    ) async throws -> Endpoint.Answer {
        let headers = userHeaders(user, tier: tier).merging(headers) { $1 }
        return try await gateway.post("/analyze", body, headers: headers)
    }

    /// The end of what each program wrote.
    var logs: String {
        let all =
            [controlPlane.process, agents.process, redis.process]
            + parts.withLock { $0.values.map(\.process) }
        return all.sorted { $0.name < $1.name }.map { process in
            let lines = process.log.split(separator: "\n", omittingEmptySubsequences: false)
            return "=== \(process.name) (\(process.pid))\n"
                + lines.suffix(60).joined(separator: "\n")
        }.joined(separator: "\n")
    }

    private func dispose() async {
        // In the order of a tidy end: nobody loses a peer that it still needs for its last words.
        await parts.withLock { $0["gateway"]?.process }?.dispose()
        for part in parts.withLock({ Array($0.values) }) { await part.process.dispose() }
        await controlPlane.process.dispose()
        await agents.process.dispose()
        await redis.process.dispose()
    }
}
