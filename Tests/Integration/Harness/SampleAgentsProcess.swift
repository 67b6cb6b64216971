import Foundation
import WeirCore

/// The sample agents, as one process with a listener for each.
final class SampleAgentsProcess: Sendable {
    static let names = ["finbert", "gpt4-turbo", "llama2-7b", "tft", "risk"]

    let process: TestProcess
    private let ports: [String: UInt16]

    /// - Parameters:
    ///   - latency: as the option of the program takes it.
    ///   - faults: by agent, `KIND[:ARGUMENT]`.
    init(
        _ agents: [String] = names, latency: String = "none", faults: [String: String] = [:],
        folder: TemporaryFolder
    ) async throws {
        process = try TestProcess(
            "agents", executable: Products.path("weir-sample-agents"),
            arguments: agents.flatMap { ["--agent", "\($0)=127.0.0.1:0"] }
                + faults.flatMap { ["--fault", "\($0.key)=\($0.value)"] } + ["--latency", latency],
            folder: folder)
        do {
            var ports: [String: UInt16] = [:]
            for agent in agents {
                let line = try await process.line(containing: "\(agent) listening on ")
                ports[agent] = line.split(separator: ":").last.flatMap { UInt16($0) }
            }
            self.ports = ports
        } catch {
            await process.dispose()
            throw TestProcess.Failed(description: "\(error)\n\(process.log)")
        }
    }

    func port(_ agent: String) throws -> UInt16 {
        guard let port = ports[agent] else {
            throw TestProcess.Failed(description: "\(agent) is not served")
        }
        return port
    }

    func endpoint(_ agent: String) throws -> Endpoint { Endpoint(port: try port(agent)) }

    /// `requests`, `bodies`, `completed`, `aborted`, `inFlight`, `inputTokens`, `outputTokens`, and
    /// `last`, the last request as it arrived.
    func stats(_ agent: String) async throws -> JSONValue {
        try await endpoint(agent).get("/__stats").json()
    }

    func count(_ name: String, of agent: String) async throws -> Int {
        Int(try await stats(agent)[name]?.int64 ?? -1)
    }

    /// - Parameter times: for so many requests; nil until another order comes.
    func setFault(_ agent: String, _ kind: String, argument: Int? = nil, times: Int? = nil)
        async throws
    {
        var order: JSONObject = ["kind": .string(kind)]
        if let argument { order["arg"] = .number(JSONNumber(argument)) }
        if let times { order["times"] = .number(JSONNumber(times)) }
        let answer = try await endpoint(agent).put("/__fault", JSONValue.object(order).text)
        guard answer.status == 200 else { throw TestProcess.Failed(description: answer.text) }
    }

    func reset(_ agent: String) async throws { _ = try await endpoint(agent).put("/__reset") }
}
