import Foundation
import WeirCore

/// A sidecar on its own before the sample Llama, as `--standalone` is meant to be used:
/// a policy that `weir policy compile` wrote, no control plane, no Redis.
struct Standalone: Sendable {
    static let agent = "llama2-7b"
    /// Nano-dollars for a token, as manifests/policy/prices.yaml has them for a million.
    static let inputPrice: Int64 = 50
    static let outputPrice: Int64 = 250
    static let secret = "sk-not-to-be-shown-anywhere"

    let agents: SampleAgentsProcess
    let part: MeshPart
    let port: UInt16
    let adminPort: UInt16

    var endpoint: Endpoint { Endpoint(port: port) }
    var admin: Endpoint { Endpoint(port: adminPort) }

    /// Starts it, runs the test, and takes it down however the test ends.
    static func run(
        allowance: String = "1", workers: Int = 1, latency: String = "none",
        _ test: (Standalone) async throws -> Void
    ) async throws {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let agents = try await SampleAgentsProcess([agent], latency: latency, folder: folder)
        do {
            let alone = try await Standalone(
                agents: agents, allowance: allowance, workers: workers, folder: folder)
            do {
                try await alone.part.ready()
                try await test(alone)
            } catch {
                print(alone.part.log)
                await alone.part.process.dispose()
                throw error
            }
            await alone.part.process.dispose()
        } catch {
            await agents.process.dispose()
            throw error
        }
        await agents.process.dispose()
    }

    private init(
        agents: SampleAgentsProcess, allowance: String, workers: Int, folder: TemporaryFolder
    ) async throws {
        self.agents = agents
        port = try Ports.free()
        let adminPort = try Ports.free()
        self.adminPort = adminPort
        let policy = folder.path("policy.json")
        try await AcceptancePolicy(in: folder).compile(to: policy)
        part = try MeshPart(
            "standalone", product: "weir-sidecar",
            arguments: [
                "--standalone", "--policy", policy, "--agent", Self.agent,
                "--listen", "127.0.0.1:\(port)", "--admin", "127.0.0.1:\(adminPort)",
                "--upstream", "http://127.0.0.1:\(try agents.port(Self.agent))",
                "--data", try folder.makeFolder("standalone"), "--allowance", allowance,
                "--workers", String(workers),
            ], environment: ["OPENAI_API_KEY": Self.secret], folder: folder,
            isReady: { try await Endpoint(port: adminPort).get("/readyz").status == 200 })
    }

    static func body(stream: Bool = false, outputTokensMax: Int? = nil) -> String {
        var object: JSONObject = [
            "model": "llama", "stream": .bool(stream),
            "messages": [["role": "user", "content": "Apple shares rose after good earnings."]],
        ]
        // Without asking, clients see no usage in a stream.
        if stream { object["stream_options"] = ["include_usage": true] }
        if let outputTokensMax { object["max_tokens"] = .number(JSONNumber(outputTokensMax)) }
        return JSONValue.object(object).text
    }

    func complete(stream: Bool = false, outputTokensMax: Int? = nil) async throws
        -> Endpoint.Answer
    {
        try await endpoint.post(
            "/v1/chat/completions", Self.body(stream: stream, outputTokensMax: outputTokensMax))
    }

    /// Sends a streamed completion on a connection of its own and leaves the reading to the caller.
    func openStream() throws -> RawConnection {
        let connection = try RawConnection(port: port)
        let body = Self.body(stream: true)
        try connection.send(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: llama\r\nConnection: close\r\n"
                + "Content-Type: application/json\r\nContent-Length: \(body.utf8.count)\r\n\r\n"
                + body)
        return connection
    }

    static func cost(_ usage: JSONValue?) -> NanoUSD? {
        guard let input = usage?["prompt_tokens"]?.int64,
            let output = usage?["completion_tokens"]?.int64
        else { return nil }
        return NanoUSD(input * inputPrice + output * outputPrice)
    }

    /// Σ `cost_usd_total`, whose values have nine decimals; `source` picks one kind.
    func charged(source: String = "") async throws -> NanoUSD {
        try await admin.get("/metrics").text.split(separator: "\n")
            .filter { $0.hasPrefix("cost_usd_total{") && $0.contains("source=\"\(source)") }
            .compactMap { $0.split(separator: " ").last.flatMap { NanoUSD(usd: String($0)) } }
            .reduce(.zero, +)
    }
}
