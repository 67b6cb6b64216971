import Foundation
import WeirCore

/// A standalone sidecar with TLS on both sides, before an upstream of Python's ssl; certificates by
/// the test's own authorities.
struct TLSSidecar: Sendable {
    static let secret = "sk-tls-key-0123456789"
    static let body = #"{"model":"gpt-4-turbo","messages":[{"role":"user","content":"hi"}]}"#

    let folder: TemporaryFolder
    let part: MeshPart
    let port: UInt16
    let adminPort: UInt16

    func certificate(_ name: String) -> String { folder.path("certificates/\(name).pem") }

    /// - Parameters:
    ///   - upstream: the name of the certificate that the upstream shows.
    ///   - trusted: whose certificates the sidecar takes from it; `nil`: the system's.
    ///   - asksClients: clients need a certificate.
    static func run(
        upstream: String = "server", trusted: String? = "ca", asksClients: Bool = false,
        arguments: [String] = [], _ test: (TLSSidecar) async throws -> Void
    ) async throws {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let made = try await makeCertificates(folder.makeFolder("certificates"))
        let agent = try await startUpstream(upstream, made, folder)
        do {
            let sidecar = try await TLSSidecar(
                folder, made, upstreamPort: agent.port, trusted: trusted,
                asksClients: asksClients, arguments: arguments)
            do {
                try await sidecar.part.ready()
                try await test(sidecar)
            } catch {
                print(sidecar.part.log)
                await sidecar.part.process.dispose()
                throw error
            }
            await sidecar.part.process.dispose()
        } catch {
            await agent.process.dispose()
            throw error
        }
        await agent.process.dispose()
    }

    /// The folder that they are in.
    static func makeCertificates(_ path: String) async throws -> String {
        let script = Products.root.appendingPathComponent("Tests/TLS/make-certificates").path
        let result = try await Tools.run("/bin/bash", [script, path])
        guard result.status == 0 else { throw TestProcess.Failed(description: result.output) }
        return path
    }

    private static func startUpstream(
        _ name: String, _ made: String, _ folder: TemporaryFolder
    ) async throws -> (process: TestProcess, port: UInt16) {
        let port = try Ports.free()
        let script = Products.root.appendingPathComponent("Tests/TLS/https-upstream.py").path
        let process = try TestProcess(
            "upstream", executable: try Tools.path("python3"),
            arguments: [
                script, String(port), "\(made)/\(name).pem", "\(made)/\(name)-key.pem",
                "\(made)/ca.pem",
            ], folder: folder)
        _ = try await process.line(containing: "listening")
        return (process, port)
    }

    private init(
        _ folder: TemporaryFolder, _ made: String, upstreamPort: UInt16, trusted: String?,
        asksClients: Bool, arguments: [String]
    ) async throws {
        self.folder = folder
        port = try Ports.free()
        let adminPort = try Ports.free()
        self.adminPort = adminPort
        let policy = folder.path("policy.json")
        let source = try AcceptancePolicy(in: folder)
        try source.replace(
            "agents.yaml", "{requestsPerSecond: 10, burst: 20, scope: instance}",
            with: "{requestsPerSecond: 100000, burst: 100000, scope: instance}")
        try await source.compile(to: policy)
        var all = [
            "--standalone", "--policy", policy, "--agent", "gpt4-turbo", "--listen",
            "127.0.0.1:\(port)", "--admin", "127.0.0.1:\(adminPort)", "--upstream",
            "https://localhost:\(upstreamPort)/base", "--upstream-certificate",
            "\(made)/client.pem", "--upstream-key", "\(made)/client-key.pem", "--tls-certificate",
            "\(made)/server.pem", "--tls-key", "\(made)/server-key.pem", "--data",
            try folder.makeFolder("data"),
        ]
        if let trusted { all += ["--upstream-ca", "\(made)/\(trusted).pem"] }
        if asksClients {
            all += [
                "--tls-client-ca", "\(made)/ca.pem", "--tls-client-identities",
                "spiffe://mesh.test/agent/*",
            ]
        }
        part = try MeshPart(
            "tls-sidecar", product: "weir-sidecar", arguments: all + arguments,
            environment: ["OPENAI_API_KEY": Self.secret, "LOG_LEVEL": "debug"], folder: folder,
            isReady: { try await Endpoint(port: adminPort).get("/readyz").status == 200 })
    }

    /// curl with the test's authority, and with a certificate where it is named.
    func curl(as client: String? = nil, _ more: [String] = []) async throws
        -> (status: Int32, output: String)
    {
        var arguments = [
            "-sS", "-m", "10", "--cacert", certificate("ca"), "-H",
            "content-type: application/json", "-d", Self.body,
            "https://localhost:\(port)/v1/chat/completions",
        ]
        if let client {
            arguments += ["--cert", certificate(client), "--key", certificate("\(client)-key")]
        }
        return try await Tools.run(Tools.path("curl"), arguments + more)
    }

    /// `openssl s_client`, which asks for one thing, so that a ticket has come before it ends, and
    /// tells of the session.
    func handshake(_ arguments: [String], as client: String? = nil) async throws -> String {
        var all = ["s_client", "-connect", "127.0.0.1:\(port)", "-CAfile", certificate("ca")]
        if let client {
            all += ["-cert", certificate(client), "-key", certificate("\(client)-key")]
        }
        let request = #"printf 'GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n'"#
        return try await Tools.run(
            "/bin/bash",
            ["-c", request + #" | exec "$@" -ign_eof"#, "-", Tools.path("openssl")] + all
                + arguments
        ).output
    }

    /// Waits for a line of the log.
    func logs(_ text: String) async throws {
        try await eventually("the log says \"\(text)\"") { part.log.contains(text) }
    }

    var residentBytes: Int {
        let status = try? String(
            contentsOfFile: "/proc/\(part.process.pid)/status", encoding: .utf8)
        let line = status?.split(separator: "\n").first { $0.hasPrefix("VmRSS:") }
        return (line?.split(separator: " ").compactMap { Int($0) }.first ?? 0) * 1_024
    }
}
