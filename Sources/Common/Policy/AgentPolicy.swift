import WeirCore

/// Everything that the mesh knows of one agent (kind `Agent`). Durations are milliseconds.
package struct AgentPolicy: Hashable, Sendable {
    package enum WireProtocol: String, Sendable, CaseIterable {
        case json, openai, anthropic, huggingface, passthrough

        /// It takes a prompt and writes text, by the token.
        package var isChat: Bool { self == .openai || self == .anthropic }
    }

    package struct Model: Hashable, Sendable {
        package var id: String
        package var aliases: [String]
        package init(id: String, aliases: [String]) {
            self.id = id
            self.aliases = aliases
        }
    }

    package struct Timeouts: Hashable, Sendable {
        package var connectMilliseconds: Int64 = 1_000
        /// From the end of the request to the response's head.
        package var firstByteMilliseconds: Int64 = 30_000
        /// Longest silence in mid-response.
        package var idleMilliseconds: Int64 = 30_000
        package var totalMilliseconds: Int64 = 30_000
        package init() {}
    }

    package struct RateLimit: Hashable, Sendable {
        package var requestsPerSecond: Double
        package var burst: Int64
        package init(requestsPerSecond: Double, burst: Int64) {
            self.requestsPerSecond = requestsPerSecond
            self.burst = burst
        }
    }

    package struct Concurrency: Hashable, Sendable {
        package var requestsMax: Int
        package var queueMax: Int = 0
        package var queueMilliseconds: Int64 = 1_000
        package init(requestsMax: Int) { self.requestsMax = requestsMax }
    }

    package struct Breaker: Hashable, Sendable {
        package var consecutiveFailures: Int = 5
        package var openMilliseconds: Int64 = 5_000
        package var openMillisecondsMax: Int64 = 60_000
        package init() {}
    }

    /// Another endpoint of the agent for a request of which nothing was done.
    package struct Retry: Hashable, Sendable {
        /// Retries that requests of the last seconds pay for, and those that every second does.
        package var budgetPercent: Int = 20
        package var budgetPerSecond: Int = 10
        /// Endpoints that one request may try.
        package var attemptsMax: Int = 3
        /// The agent does a request twice without harm: one that was sent and not answered may be
        /// made again, as a call of its own that costs again.
        package var afterSend = false
        package init() {}
    }

    /// A version of the agent, and its share of the users.
    package struct Version: Hashable, Sendable {
        package var name: String
        package var weight: Int
        package init(name: String, weight: Int) {
            self.name = name
            self.weight = weight
        }
    }

    package struct HealthCheck: Hashable, Sendable {
        package var path: String
        package var intervalMilliseconds: Int64 = 5_000
        package var unhealthyAfter: Int = 3
        package var healthyAfter: Int = 1
        package init(path: String) { self.path = path }
    }

    /// Calls that the agent makes for a request, through its own sidecar.
    package struct Outbound: Hashable, Sendable {
        /// Whom it may call. Empty in a sidecar's projection: gateways decide.
        package var agents: [String]
        /// All calls for one request together.
        package var maxCostPerRequest: NanoUSD
        package init(agents: [String], maxCostPerRequest: NanoUSD) {
            self.agents = agents
            self.maxCostPerRequest = maxCostPerRequest
        }
    }

    /// Whole answers that gateways keep, and give again to the very same request.
    package struct Cache: Hashable, Sendable {
        /// Who gets an answer that was kept: the user who had it, or everybody of the tenant.
        package enum Scope: String, Sendable, CaseIterable { case user, tenant }

        package var ttlMilliseconds: Int64
        package var scope: Scope
        /// Of each gateway.
        package var entriesMax: Int = 1_000
        package var bytesMax: Int = 8 << 20
        package init(ttlMilliseconds: Int64, scope: Scope = .user) {
            self.ttlMilliseconds = ttlMilliseconds
            self.scope = scope
        }
    }

    package enum WhenUsageIsMissing: String, Sendable, CaseIterable { case ceiling, estimated }
    package enum WhenAgentRefuses: String, Sendable, CaseIterable { case charge, free }
    package enum WhenCallerLeaves: String, Sendable, CaseIterable { case drain, cancel }

    package var name: String
    package var wireProtocol: WireProtocol
    /// The path that an analysis calls.
    package var path: String
    /// The first one is the default.
    package var models: [Model]
    package var timeouts = Timeouts()
    package var rateLimit: RateLimit?
    package var concurrency: Concurrency?
    package var breaker = Breaker()
    package var retry = Retry()
    package var healthCheck: HealthCheck?
    /// Which sidecars gateways call, by the version that those say; empty: all alike.
    package var versions: [Version] = []
    /// Agents to try instead, in this order.
    package var fallbacks: [String] = []
    /// For the steps that bring none of their own.
    package var prompt: PromptTemplate?
    /// The output ceiling where a request states none.
    package var outputTokensMax: Int64 = 512
    package var requestBodyBytesMax: Int = 1 << 20
    /// Where answers say what was used; `nil`: as the protocol does.
    package var usage: UsagePlaces?
    /// Where a request limits its output, for protocols that have no such field.
    package var outputLimit: JSONPointer?
    package var whenUsageIsMissing: WhenUsageIsMissing = .ceiling
    /// What a status costs by which the agent says that it did no work (`isRefusal`), where its
    /// answer reports no usage.
    package var whenAgentRefuses: WhenAgentRefuses = .charge
    package var whenCallerLeaves: WhenCallerLeaves = .drain
    /// What a request costs at most whose cost cannot be bounded; `nil` refuses it.
    package var unmeteredCeiling: NanoUSD?
    /// The name of the credential that its sidecar adds upstream.
    package var credential: String?
    /// `nil`: it calls nobody.
    package var outbound: Outbound?
    /// `nil`: every request is carried out. Gateways' alone.
    package var cache: Cache?
    /// Decide and record, refuse nothing.
    package var observe = false
    /// Hash the bodies as they pass, and record the digests.
    package var bodyDigests = true
    /// What its availability counts in the mesh's health score, against the other agents'; 0 leaves
    /// it out.
    package var healthWeight: Int64 = 1

    package init(name: String, wireProtocol: WireProtocol, path: String, models: [Model]) {
        self.name = name
        self.wireProtocol = wireProtocol
        self.path = path
        self.models = models
    }

    /// Statuses that come before any work: the request is wrong, not allowed or too much just now.
    /// 500, 502 and 504 are not among them, because they may come behind it.
    package static func isRefusal(status: Int) -> Bool {
        switch status {
        // 529: Anthropic's word for "overloaded".
        case 400, 401, 403, 404, 405, 413, 415, 422, 429, 503, 529: true
        default: false
        }
    }

    package var usagePlaces: UsagePlaces? {
        usage ?? (wireProtocol == .huggingface ? .textGeneration : nil)
    }

    package var outputLimitPlace: JSONPointer? {
        let ofGeneration = JSONPointer(["parameters", "max_new_tokens"])
        return outputLimit ?? (wireProtocol == .huggingface ? ofGeneration : nil)
    }

    package var defaultModel: String { models.first?.id ?? name }

    /// The model's id for an id or alias; `nil` when this agent has no such model.
    package func model(named name: String) -> String? {
        models.first { $0.id == name || $0.aliases.contains(name) }?.id
    }
}
