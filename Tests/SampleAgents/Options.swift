import ArgumentParser

/// The agents that the platform names.
enum AgentKind: String, CaseIterable, Sendable {
    case finbert
    case gpt4Turbo = "gpt4-turbo"
    case llama = "llama2-7b"
    case tft
    case risk

    /// What the platform's own description gives as the agent's latency.
    var seedLatencyMilliseconds: Int {
        switch self {
        case .finbert: 12
        case .gpt4Turbo: 850
        case .llama: 210
        case .tft: 28
        case .risk: 50
        }
    }

    /// Where work arrives; everything else is health, models and the test's own endpoints.
    var workPaths: [String] {
        switch self {
        case .finbert: ["/", "/models/ProsusAI/finbert"]
        case .gpt4Turbo, .llama: ["/v1/chat/completions"]
        case .tft: ["/", "/forecast"]
        case .risk: ["/", "/analyze"]
        }
    }

    /// The models of an agent that has models; the first one answers unless a request names one.
    var models: [String] {
        switch self {
        case .finbert: ["ProsusAI/finbert"]
        case .gpt4Turbo: ["gpt-4-turbo"]
        case .llama: ["llama-2-7b-chat"]
        case .tft, .risk: []
        }
    }
}

/// `finbert=127.0.0.1:4001`
struct AgentListener: ExpressibleByArgument {
    let kind: AgentKind
    let host: String
    let port: Int

    init?(argument: String) {
        guard let (kind, address) = splitAgent(argument),
            let colon = address.lastIndex(of: ":"),
            let port = UInt16(address[address.index(after: colon)...])
        else { return nil }
        self.kind = kind
        self.host = String(address[..<colon])
        self.port = Int(port)
        guard !host.isEmpty else { return nil }
    }
}

/// `llama2-7b=fail:503`
struct AgentFault: ExpressibleByArgument {
    let kind: AgentKind
    let fault: Fault

    init?(argument: String) {
        guard let (kind, text) = splitAgent(argument), let fault = Fault(text) else { return nil }
        self.kind = kind
        self.fault = fault
    }
}

enum Latency: ExpressibleByArgument, Equatable {
    case seed
    case milliseconds(Int)

    init?(argument: String) {
        switch argument {
        case "seed": self = .seed
        case "none": self = .milliseconds(0)
        default:
            guard let value = Int(argument), (0...600_000).contains(value) else { return nil }
            self = .milliseconds(value)
        }
    }

    func milliseconds(of kind: AgentKind) -> Int {
        switch self {
        case .seed: kind.seedLatencyMilliseconds
        case .milliseconds(let value): value
        }
    }
}

private func splitAgent(_ argument: String) -> (AgentKind, String)? {
    guard let equals = argument.firstIndex(of: "="),
        let kind = AgentKind(rawValue: String(argument[..<equals]))
    else { return nil }
    return (kind, String(argument[argument.index(after: equals)...]))
}
