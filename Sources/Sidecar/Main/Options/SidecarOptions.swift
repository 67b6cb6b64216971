import SidecarCore
import SidecarGateway
import WeirCore
import WeirMeshProtocol
import WeirPolicy

/// Everything that the command line, the environment and a file say, understood and checked.
struct SidecarOptions: Sendable {
    enum Mode: Sendable {
        case standalone(Standalone)
        case agent(Agent)
        case gateway(Gateway)

        var upstreams: [HTTPOrigin] {
            switch self {
            case .standalone(let mode): mode.upstreams
            case .agent(let mode): mode.upstreams
            case .gateway: []
            }
        }
    }

    /// One service behind a policy from a file; no control plane.
    struct Standalone: Sendable {
        var agent: String
        var policyPath: String
        /// Instances of the agent; a name may stand for several more.
        var upstreams: [HTTPOrigin]
        var journalKeepBytes: Int
        /// What may be spent in all; the budget's stand-in.
        var allowance: NanoUSD
    }

    /// The sidecar of one agent in a mesh.
    struct Agent: Sendable {
        var agent: String
        /// Of the agent, where the policy gives versions weights.
        var version: String?
        var upstreams: [HTTPOrigin]
        var mesh: Mesh
        /// Where gateways reach the inbound listener.
        var advertise: String
        var outbound: Outbound?
    }

    /// Where the agent makes its own calls, and the gateway that they go to.
    struct Outbound: Sendable {
        var listen: SocketAddress
        var gateway: HTTPOrigin
    }

    struct Gateway: Sendable {
        var mesh: Mesh
        var configuration: GatewayConfiguration
        /// Agents that are found without discovery.
        var services: [String: [HTTPOrigin]]
    }

    struct Mesh: Sendable {
        var controlPlane: [HTTPOrigin]
        var joinToken: String
        var dataFolder: String
        /// Whether messages leave this machine, in the clear.
        var isExposed: Bool
    }

    var mode: Mode
    var listen: SocketAddress
    var admin: SocketAddress?
    var workers: Int
    var dataFolder: String?
    var instance: String
    var logLevel: LogLevel
    /// Where the policy is silent.
    var breakerThreshold: Int?
    var agentTimeoutSeconds: Int?
    var drainSeconds: Int
    var credentials: Credentials
    /// `nil`: the listener speaks plaintext.
    var listenerTLS: ListenerTLS?
    /// `nil`: no upstream speaks TLS.
    var upstreamTLS: UpstreamTLS?
    /// What `/config` shows: everything that is set, without secrets.
    var shown: [(name: String, value: String)]

    init(
        _ values: OptionValues, hostName: String, readFile: @escaping TLSFileReader = TextFile.read,
        resolve: @escaping (String) -> [SocketAddress]
    ) throws(OptionProblems) {
        var reader = OptionReader(values, resolve: resolve)
        let listen = reader.address("listen", required: true)
        admin = reader.address("admin")
        workers = reader.integer("workers", in: 1...256) ?? 1
        dataFolder = reader.text("data")
        instance = reader.text("instance") ?? hostName
        breakerThreshold = reader.integer("breaker-threshold", in: 1...1_000_000)
        agentTimeoutSeconds = reader.integer("agent-timeout", in: 1...86_400)
        drainSeconds = reader.integer("drain", in: 0...3_600) ?? 30
        logLevel = Self.logLevel(&reader)
        credentials = Self.credentials(&reader)
        shown = values.table.compactMap { option in
            guard let value = values[option.name] else { return nil }
            return (option.name, option.kind == .secret ? "[redacted]" : value.text)
        }
        listenerTLS = reader.listenerTLS(readFile)
        let upstreamTLS = reader.upstreamTLS(readFile)
        _ = reader.oneOf("tls-minimum", TLSVersion.allCases.map(\.rawValue))
        let mode = Self.mode(&reader, listen: listen)
        guard reader.problems.isEmpty, let mode, let listen else {
            throw OptionProblems(list: reader.problems)
        }
        self.mode = mode
        self.listen = listen
        if mode.upstreams.contains(where: \.isSecure) { self.upstreamTLS = upstreamTLS }
    }

    private static func credentials(_ reader: inout OptionReader) -> Credentials {
        var keys: [String: String] = [:]
        var files: [String: String] = [:]
        for (setting, name) in SidecarOptionTable.credentials {
            guard let key = reader.text(setting) else { continue }
            if !SecretText.isKey(key) { reader.report(setting, SecretText.need) }
            keys[name] = key
            files[name] = reader.values.secretFiles[setting]
        }
        return Credentials(keys, files: files)
    }

    private static func logLevel(_ reader: inout OptionReader) -> LogLevel {
        let named = reader.text("log-level")
        let debug = reader.text("debug")
        guard let level = LogLevel(logLevel: named, debug: debug) else {
            reader.report("log-level", "\"\(named ?? "")\" is no level")
            return .info
        }
        return level
    }

    private static func mode(_ reader: inout OptionReader, listen: SocketAddress?) -> Mode? {
        let role = reader.oneOf("role", ["agent", "gateway"])
        if reader.flag("standalone") {
            if role == "gateway" {
                reader.report("standalone", "a gateway needs a control plane")
            }
            return standalone(&reader)
        }
        return role == "gateway" ? gateway(&reader) : agent(&reader, listen: listen)
    }

    private static func standalone(_ reader: inout OptionReader) -> Mode? {
        let agent = reader.text("agent", required: true)
        let policy = reader.text("policy", required: true)
        let upstreams = upstreams(&reader)
        // A journal that keeps less than its mapped segments could not turn over.
        let keep = reader.byteCount("journal-keep", in: 8 << 20...1 << 42)
        let allowance = reader.money("allowance")
        guard let agent, let policy, !upstreams.isEmpty, let keep else { return nil }
        return .standalone(
            Standalone(
                agent: agent, policyPath: policy, upstreams: upstreams, journalKeepBytes: keep,
                allowance: allowance ?? .limitMax))
    }

    private static func agent(_ reader: inout OptionReader, listen: SocketAddress?) -> Mode? {
        let agent = reader.text("agent", required: true)
        if reader.isSet("tls-certificate") {
            reader.report(
                "tls-certificate", "gateways call sidecars in plaintext yet: not in this role")
        }
        let upstreams = upstreams(&reader)
        let plaintext = plaintext(&reader)
        let mesh = mesh(&reader, plaintext)
        let advertise = reader.text("advertise") ?? listen?.description
        let version = reader.text("agent-version")
        let outbound = outbound(&reader, plaintext)
        guard let agent, !upstreams.isEmpty, let mesh, let advertise else { return nil }
        return .agent(
            Agent(
                agent: agent, version: version, upstreams: upstreams, mesh: mesh,
                advertise: advertise, outbound: outbound))
    }

    private static func upstreams(_ reader: inout OptionReader) -> [HTTPOrigin] {
        let upstreams = reader.urls("upstream", required: true, isUpstream: true)
        let kinds = Set(
            upstreams.map {
                [$0.wire == .http2 ? "h2c" : "", $0.isSecure ? $0.name?.host ?? "" : nil, $0.path]
            })
        if kinds.count > 1 {
            reader.report(
                "upstream", "all instances need one scheme, one path and, with https, one name")
        }
        let authorities = upstreams.map(\.authority)
        if Set(upstreams.flatMap(\.addresses)).count < upstreams.flatMap(\.addresses).count {
            reader.report("upstream", "\(authorities.joined(separator: ",")) has an address twice")
        }
        if upstreams.count > Limits.endpointsPerAgent {
            reader.report("upstream", "has more than \(Limits.endpointsPerAgent) addresses")
        }
        return upstreams
    }

    private static func outbound(
        _ reader: inout OptionReader, _ plaintext: MeshPlaintext
    ) -> Outbound? {
        let listen = reader.address("outbound")
        if let listen, !listen.isLoopback {
            reader.report("outbound", "is for the agent beside this sidecar: loopback only")
        }
        let gateway = reader.url("gateway", required: reader.isSet("outbound"))
        if reader.isSet("gateway"), !reader.isSet("outbound") {
            reader.report("outbound", "is needed where a gateway is named")
        }
        if let gateway { check(gateway, "gateway", plaintext, &reader) }
        guard let listen, let gateway else { return nil }
        return Outbound(listen: listen, gateway: gateway)
    }

    private static func gateway(_ reader: inout OptionReader) -> Mode? {
        let mesh = mesh(&reader, plaintext(&reader))
        let configuration = gatewayConfiguration(&reader)
        var services: [String: [HTTPOrigin]] = [:]
        for (agent, name) in SidecarOptionTable.services {
            let origins = reader.urls(name)
            if !origins.isEmpty { services[agent] = origins }
        }
        guard let mesh, let configuration else { return nil }
        return .gateway(Gateway(mesh: mesh, configuration: configuration, services: services))
    }

    private static func gatewayConfiguration(
        _ reader: inout OptionReader
    ) -> GatewayConfiguration? {
        let keys = [
            key(&reader, "jwt-secret", required: true),
            key(&reader, "jwt-secret-previous", required: false),
        ].compactMap { $0 }
        let verifier = TokenVerifier(
            keys: keys, issuer: reader.text("jwt-issuer"), audience: reader.text("jwt-audience"))
        var origins: AllowedOrigins? = AllowedOrigins([])
        if let text = reader.text("cors-origins") {
            origins = AllowedOrigins(json: text)
            if origins == nil {
                reader.report(
                    "cors-origins",
                    #"is no JSON array of origins: ["https://app.example.com"] or ["*"]"#)
            }
        }
        let concurrent = reader.integer("concurrent-requests-max", in: 1...1_000_000)
        guard let verifier, let origins else { return nil }
        return GatewayConfiguration(
            verifier: verifier, origins: origins,
            analysesMax: concurrent ?? GatewayLimits.analysesDefaultMax)
    }

    private static func key(
        _ reader: inout OptionReader, _ name: String, required: Bool
    ) -> [UInt8]? {
        guard let text = reader.text(name, required: required) else { return nil }
        let key = Array(text.utf8)
        if key.count < TokenVerifier.keyBytesMin {
            reader.report(name, "is shorter than \(TokenVerifier.keyBytesMin) bytes")
        }
        return key
    }

    private static func plaintext(_ reader: inout OptionReader) -> MeshPlaintext {
        let choices = MeshPlaintext.allCases.map(\.rawValue)
        return reader.oneOf("mesh-plaintext", choices).flatMap(MeshPlaintext.init) ?? .loopback
    }

    private static func mesh(_ reader: inout OptionReader, _ plaintext: MeshPlaintext) -> Mesh? {
        let controlPlane = reader.urls("control-plane", required: true)
        for origin in controlPlane { check(origin, "control-plane", plaintext, &reader) }
        let token = reader.text("join-token", required: true)
        let data = reader.text("data", required: true)
        guard !controlPlane.isEmpty, let token, let data else { return nil }
        return Mesh(
            controlPlane: controlPlane, joinToken: token, dataFolder: data,
            isExposed: controlPlane.contains { !$0.address.isLoopback })
    }
}

extension SidecarOptions {
    /// Until both sides have certificates: tokens and calls travel in the clear.
    private static func check(
        _ origin: HTTPOrigin, _ option: String, _ plaintext: MeshPlaintext,
        _ reader: inout OptionReader
    ) {
        guard !plaintext.allows(isLoopback: origin.address.isLoopback) else { return }
        reader.report(
            option,
            "\(origin.authority) is not on the loopback interface, and --mesh-plaintext is not "
                + MeshPlaintext.network.rawValue)
    }

    /// What the environment says where the policy is silent.
    func filled(_ agent: AgentPolicy) -> AgentPolicy {
        var agent = agent
        if let breakerThreshold, agent.breaker == .init() {
            agent.breaker.consecutiveFailures = breakerThreshold
        }
        if let agentTimeoutSeconds, agent.timeouts == .init() {
            agent.timeouts.totalMilliseconds = Int64(agentTimeoutSeconds) * 1_000
        }
        return agent
    }
}

/// The table of all settings.
enum SidecarOptionTable {
    /// Agent and setting of the addresses that are fixed by the environment.
    static let services = [
        ("finbert", "finbert-service"), ("llama2-7b", "llama-service"),
        ("gpt4-turbo", "gpt4-service"), ("tft", "tft-service"), ("risk", "risk-service"),
    ]

    /// Setting and name of the credentials that a policy can ask for.
    static let credentials = [
        ("openai-api-key", "OPENAI_API_KEY"), ("huggingface-api-key", "HUGGINGFACE_API_KEY"),
        ("anthropic-api-key", "ANTHROPIC_API_KEY"),
    ]

    static let usage = [
        "weir-sidecar: a proxy in front of one agent, or the gateway of a mesh.", "",
        "  weir-sidecar --standalone --policy FILE.json --agent NAME --listen ADDR --upstream URL",
        "  weir-sidecar --agent NAME --listen ADDR --upstream URL --control-plane URL --data DIR",
        "  weir-sidecar --role gateway --listen ADDR --control-plane URL --data DIR", "",
        "Exit codes: 0 ended as told, 2 wrong settings, 3 a file or policy cannot be used,",
        "4 the system refused (address in use, out of descriptors), 5 told twice to end.",
    ]

    static let all: [Option] = [
        .flag("help", "Print this and end"),
        .value("config", "FILE", environment: "WEIR_CONFIG", "JSON object with these settings"),
        .value("role", "ROLE", environment: "WEIR_ROLE", fallback: "agent", "agent or gateway"),
        .flag("standalone", "Without control plane: the policy comes from --policy"),
        .value("policy", "FILE", environment: "WEIR_POLICY", "What `weir policy compile` wrote"),
        .value("agent", "NAME", environment: "WEIR_AGENT", "The agent behind this sidecar"),
        .value("listen", "ADDR", environment: "WEIR_LISTEN", "Where requests come in"),
        .value(
            "upstream", "URL", environment: "WEIR_UPSTREAM",
            "The agent: http://, h2c:// (HTTP/2, gRPC), https:// or unix:/path; several by comma"),
        .value(
            "upstream-ca", "FILE", environment: "WEIR_UPSTREAM_CA",
            "PEM; who signs https upstreams, instead of the system's store"),
        .value(
            "upstream-certificate", "FILE", environment: "WEIR_UPSTREAM_CERTIFICATE",
            "PEM; shown to upstreams that ask for one"),
        .value(
            "upstream-key", "FILE", environment: "WEIR_UPSTREAM_KEY",
            "PEM; the key of that certificate"),
        .value(
            "tls-certificate", "FILE", environment: "WEIR_TLS_CERTIFICATE",
            "PEM, with its chain: --listen speaks TLS"),
        .value("tls-key", "FILE", environment: "WEIR_TLS_KEY", "PEM; the key of that certificate"),
        .value(
            "tls-client-ca", "FILE", environment: "WEIR_TLS_CLIENT_CA",
            "PEM; clients need a certificate of these authorities"),
        .value(
            "tls-client-identities", "LIST", environment: "WEIR_TLS_CLIENT_IDENTITIES",
            "Which of them may connect: SPIFFE ids, or beginnings with *"),
        .value(
            "tls-minimum", "VERSION", environment: "WEIR_TLS_MINIMUM",
            fallback: TLSVersion.v1_2.rawValue, "1.2 or 1.3, on both sides"),
        .value(
            "agent-version", "NAME", environment: "WEIR_AGENT_VERSION",
            "Which of the policy's versions of the agent this is"),
        .value("admin", "ADDR", environment: "WEIR_ADMIN", "/metrics, /healthz, /readyz, /config"),
        .value("control-plane", "URL", environment: "WEIR_CONTROL_PLANE", "One or more, by comma"),
        .value("advertise", "ADDR", environment: "WEIR_ADVERTISE", "--listen as gateways see it"),
        .value(
            "mesh-plaintext", "FAR", environment: MeshPlaintext.environment,
            fallback: MeshPlaintext.loopback.rawValue,
            "How far the mesh may go without TLS: \(MeshPlaintext.choices)"),
        .value("outbound", "ADDR", environment: "WEIR_OUTBOUND", "Where the agent calls others"),
        .value("gateway", "URL", environment: "WEIR_GATEWAY_URL", "Where those calls go"),
        .value("data", "DIR", environment: "WEIR_DATA", "Journal and last good policy"),
        .value("workers", "N", environment: "WEIR_WORKERS", fallback: "1", "Threads that serve"),
        .value(
            "journal-keep", "BYTES", environment: "WEIR_JOURNAL_KEEP", fallback: "1GiB",
            "Standalone: records beyond this are dropped, oldest first"),
        .value("allowance", "USD", "Standalone: what may be spent in all; else no limit"),
        .value("instance", "NAME", environment: "WEIR_INSTANCE", "For people; the host's name"),
        .value(
            "drain", "SECONDS", environment: "WEIR_DRAIN", fallback: "30",
            "How long exchanges may go on after SIGTERM"),
        .secret("join-token", "WEIR_JOIN_TOKEN", "Admits this process to the mesh"),
        .secret("jwt-secret", "JWT_SECRET_KEY", "Gateway: key of users' HS256 tokens"),
        .secret("jwt-secret-previous", "JWT_SECRET_KEY_PREVIOUS", "Gateway: the key before"),
        .variable("jwt-issuer", "JWT_ISSUER", "Gateway: whose tokens alone are taken"),
        .variable("jwt-audience", "JWT_AUDIENCE", "Gateway: who tokens must be for"),
        .variable("cors-origins", "CORS_ORIGINS", "Gateway: JSON array of origins"),
        .variable(
            "concurrent-requests-max", "MAX_CONCURRENT_REQUESTS",
            fallback: String(GatewayLimits.analysesDefaultMax), "Gateway: analyses at once"),
        .variable("finbert-service", "FINBERT_SERVICE_URL", "Gateway: where not discovered"),
        .variable("llama-service", "LLAMA_SERVICE_URL", "Gateway: where not discovered"),
        .variable("gpt4-service", "GPT4_SERVICE_URL", "Gateway: where not discovered"),
        .variable("tft-service", "TFT_SERVICE_URL", "Gateway: where not discovered"),
        .variable("risk-service", "RISK_SERVICE_URL", "Gateway: where not discovered"),
        .secret("openai-api-key", "OPENAI_API_KEY", "Only for the sidecar of that agent"),
        .secret("huggingface-api-key", "HUGGINGFACE_API_KEY", "Only for the sidecar of that agent"),
        .secret("anthropic-api-key", "ANTHROPIC_API_KEY", "Only for the sidecar of that agent"),
        .variable("breaker-threshold", "CIRCUIT_BREAKER_THRESHOLD", "Where the policy is silent"),
        .variable("agent-timeout", "AGENT_TIMEOUT_DEFAULT", "Seconds, where the policy is silent"),
        .variable("log-level", "LOG_LEVEL", fallback: "info", "debug, info, warning, error"),
        .variable("debug", "DEBUG", "true: as LOG_LEVEL=debug"),
    ]
}
