import ArgumentParser
import Hummingbird
import Logging
import ServiceLifecycle
import UnixSignals

/// The five agents of the market intelligence platform, as samples, in one process. Each has a
/// listener of its own and speaks the real wire format of its kind, so that nothing inside the mesh
/// knows that the agents are samples. They share no code with Weir: a mistake of ours in a wire
/// format must not be made on both sides.
@main
struct SampleAgents: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "weir-sample-agents",
        abstract: "Sample agents for the demo and the tests.",
        discussion: """
            Agents: finbert, gpt4-turbo, llama2-7b, tft, risk.

            Faults are KIND[:ARGUMENT], for one agent (--fault), for one request (the header \
            sample-fault) or from now on (PUT /__fault with {"kind": "…", "times": N}):
            \(Fault.help)

            GET /__stats shows what arrived, PUT /__reset forgets it.
            """)

    @Option(help: "An agent and where it listens, NAME=HOST:PORT; port 0 takes any. Repeatable.")
    var agent: [AgentListener] = []

    @Option(help: "seed (the agents' own latencies), none, or milliseconds for every request.")
    var latency: Latency = .seed

    @Option(help: "A fault from the start, AGENT=KIND[:ARGUMENT]. Repeatable.")
    var fault: [AgentFault] = []

    func validate() throws {
        guard !agent.isEmpty else { throw ValidationError("name at least one --agent") }
        for fault in fault where !agent.contains(where: { $0.kind == fault.kind }) {
            throw ValidationError("--fault \(fault.kind.rawValue): that agent is not served here")
        }
    }

    func run() async throws {
        var logger = Logger(label: "weir-sample-agents")
        logger.logLevel = .warning
        let services = agent.map { listener in
            let faults = fault.filter { $0.kind == listener.kind }.map(\.fault)
            let server = AgentServer(
                kind: listener.kind, latency: latency, firstFault: faults.last)
            return server.application(host: listener.host, port: listener.port, logger: logger)
        }
        var configuration = ServiceGroupConfiguration(
            services: services, gracefulShutdownSignals: [.sigterm, .sigint], logger: logger)
        // A stalled request would otherwise keep the process for as long as its client waits.
        configuration.maximumGracefulShutdownDuration = .seconds(1)
        do {
            try await ServiceGroup(configuration: configuration).run()
        } catch is CancellationError {
            // The second that a graceful end may take is over; that is still a clean end.
        }
    }
}
