import WeirCore

extension AgentPolicy {
    init?(name: String, reading spec: ObjectReader) {
        let wireProtocol = spec.choice("protocol", WireProtocol.self, required: true)
        let path = Self.path("path", spec, required: true)
        var models = Self.models(spec)
        // An agent without models is its own only model, so that it can have a price.
        if models.isEmpty { models = [Model(id: name, aliases: [])] }
        self.init(
            name: name, wireProtocol: wireProtocol ?? .json, path: path ?? "/", models: models)
        timeouts.read(spec.object("timeouts"))
        rateLimit = spec.object("rateLimit").flatMap { RateLimit(reading: $0) }
        concurrency = spec.object("concurrency").flatMap { Concurrency(reading: $0) }
        breaker.read(spec.object("breaker"))
        retry.read(spec.object("retry"))
        versions = Self.versions(spec)
        healthCheck = spec.object("healthCheck").flatMap { HealthCheck(reading: $0) }
        fallbacks = spec.names("fallbacks", countMax: PolicyLimits.fallbacksMax)
        prompt = spec.object("prompt").flatMap { PromptTemplate(reading: $0) }
        readMoney(spec)
        credential = spec.string("credential", bytesMax: PolicyLimits.nameBytesMax)
        outbound = spec.object("outbound").flatMap { Outbound(reading: $0) }
        cache = spec.object("cache").flatMap { Cache(reading: $0) }
        if cache != nil, outbound != nil {
            spec.report("cache", "answers of an agent that calls others cannot be kept")
        }
        observe = spec.bool("observe") ?? observe
        bodyDigests = spec.bool("bodyDigests") ?? bodyDigests
        healthWeight =
            spec.integer("healthWeight", in: 0...PolicyLimits.healthWeightMax) ?? healthWeight
    }

    private mutating func readMoney(_ spec: ObjectReader) {
        outputTokensMax =
            spec.integer("outputTokensMax", in: 1...PolicyLimits.outputTokensMax)
            ?? outputTokensMax
        requestBodyBytesMax =
            spec.count("requestBodyBytesMax", in: 1...PolicyLimits.requestBodyBytesMax)
            ?? requestBodyBytesMax
        whenUsageIsMissing =
            spec.choice("whenUsageIsMissing", WhenUsageIsMissing.self) ?? whenUsageIsMissing
        whenAgentRefuses =
            spec.choice("whenAgentRefuses", WhenAgentRefuses.self) ?? whenAgentRefuses
        whenCallerLeaves =
            spec.choice("whenCallerLeaves", WhenCallerLeaves.self) ?? whenCallerLeaves
        unmeteredCeiling = spec.money("unmeteredCeiling")
        usage = spec.object("usage").flatMap { UsagePlaces(reading: $0) }
        outputLimit = spec.usagePointer("outputLimit")
        guard wireProtocol != .json, wireProtocol != .huggingface else { return }
        for (key, isStated) in [("usage", usage != nil), ("outputLimit", outputLimit != nil)]
        where isStated {
            spec.report(key, "is for agents of protocol json and huggingface; others have a form")
        }
    }

    /// An absolute path without query, of visible ASCII: it goes into request lines as it is.
    fileprivate static func path(
        _ key: String, _ reader: ObjectReader, required: Bool
    ) -> String? {
        guard
            let path = reader.string(
                key, required: required, bytesMax: PolicyLimits.pathBytesMax)
        else { return nil }
        let isPlain = path.utf8.allSatisfy { $0 > 32 && $0 < 127 && $0 != 63 && $0 != 35 }
        guard path.hasPrefix("/"), isPlain else {
            reader.report(key, "must begin with \"/\" and be visible ASCII without \"?\" and \"#\"")
            return nil
        }
        return path
    }

    private static func versions(_ spec: ObjectReader) -> [Version] {
        let versions = spec.elements("versions", countMax: PolicyLimits.versionsPerAgentMax)
            .compactMap { value, path -> Version? in
                guard let reader = ObjectReader(value, at: path, spec.problems) else { return nil }
                let name = reader.string(
                    "name", required: true, bytesMax: PolicyLimits.nameBytesMax)
                let weight = reader.count("weight", in: 0...1_000_000, required: true)
                reader.finish()
                guard let name, let weight else { return nil }
                return Version(name: name, weight: weight)
            }
        if Set(versions.map(\.name)).count < versions.count {
            spec.report("versions", "names a version twice")
        }
        if !versions.isEmpty, versions.allSatisfy({ $0.weight == 0 }) {
            spec.report("versions", "gives no version any weight")
        }
        return versions
    }

    private static func models(_ spec: ObjectReader) -> [Model] {
        spec.elements("models", countMax: PolicyLimits.modelsPerAgentMax)
            .compactMap { value, path in
                guard let reader = ObjectReader(value, at: path, spec.problems) else { return nil }
                let id = reader.string(
                    "id", required: true, bytesMax: PolicyLimits.modelIDBytesMax)
                let aliases = reader.names(
                    "aliases", countMax: PolicyLimits.aliasesPerModelMax)
                reader.finish()
                return id.map { Model(id: $0, aliases: aliases) }
            }
    }
}

extension AgentPolicy.Timeouts {
    fileprivate mutating func read(_ reader: ObjectReader?) {
        guard let reader else { return }
        connectMilliseconds = reader.duration("connect") ?? connectMilliseconds
        firstByteMilliseconds = reader.duration("firstByte") ?? firstByteMilliseconds
        idleMilliseconds = reader.duration("idle") ?? idleMilliseconds
        totalMilliseconds = reader.duration("total") ?? totalMilliseconds
        if connectMilliseconds > totalMilliseconds {
            reader.report("connect", "is longer than the total")
        }
        reader.finish()
    }
}

extension AgentPolicy.RateLimit {
    init?(reading reader: ObjectReader) {
        let rate = reader.positiveNumber(
            "requestsPerSecond", max: PolicyLimits.ratePerSecondMax, required: true)
        let burst = reader.integer("burst", in: 1...PolicyLimits.burstMax)
        if let scope = reader.string("scope"), scope != "instance" {
            reader.report(
                "scope",
                "must be instance: what holds over the whole mesh is a tier's requestsPerMinute")
        }
        reader.finish()
        guard let rate else { return nil }
        // Without a burst: what one second allows, and at least one request.
        self.init(
            requestsPerSecond: rate, burst: burst ?? max(1, Int64(rate.rounded(.up))))
    }
}

extension AgentPolicy.Concurrency {
    fileprivate init?(reading reader: ObjectReader) {
        let range = 1...PolicyLimits.requestsAtOnceMax
        let requestsMax = reader.count("requestsMax", in: range, required: true)
        let queueMax = reader.count("queueMax", in: 0...PolicyLimits.requestsAtOnceMax)
        let queueMilliseconds = reader.duration("queueTimeout")
        reader.finish()
        guard let requestsMax else { return nil }
        self.init(requestsMax: requestsMax)
        self.queueMax = queueMax ?? self.queueMax
        self.queueMilliseconds = queueMilliseconds ?? self.queueMilliseconds
    }
}

extension AgentPolicy.Outbound {
    fileprivate init?(reading reader: ObjectReader) {
        let agents = reader.names("agents", countMax: PolicyLimits.documentsMax)
        if reader.value("agents") == nil { reader.report("agents", "is missing") }
        let cost = reader.money("maxCostPerRequest", required: true)
        if cost == .zero { reader.report("maxCostPerRequest", "must be above 0") }
        reader.finish()
        guard let cost else { return nil }
        self.init(agents: agents, maxCostPerRequest: cost)
    }
}

extension AgentPolicy.Breaker {
    fileprivate mutating func read(_ reader: ObjectReader?) {
        guard let reader else { return }
        consecutiveFailures =
            reader.count("consecutiveFailures", in: 1...10_000) ?? consecutiveFailures
        openMilliseconds = reader.duration("open") ?? openMilliseconds
        openMillisecondsMax = reader.duration("openMax") ?? openMillisecondsMax
        if openMilliseconds > openMillisecondsMax {
            reader.report("open", "is longer than openMax")
        }
        reader.finish()
    }
}

extension AgentPolicy.Retry {
    fileprivate mutating func read(_ reader: ObjectReader?) {
        guard let reader else { return }
        budgetPercent = reader.count("budgetPercent", in: 0...100) ?? budgetPercent
        budgetPerSecond = reader.count("budgetPerSecond", in: 0...10_000) ?? budgetPerSecond
        attemptsMax = reader.count("attemptsMax", in: 1...8) ?? attemptsMax
        afterSend = reader.bool("afterSend") ?? afterSend
        reader.finish()
    }
}

extension AgentPolicy.HealthCheck {
    fileprivate init?(reading reader: ObjectReader) {
        let path = AgentPolicy.path("path", reader, required: true)
        let interval = reader.duration("interval", in: 100...3_600_000)
        let unhealthyAfter = reader.count("unhealthyAfter", in: 1...1_000)
        let healthyAfter = reader.count("healthyAfter", in: 1...1_000)
        reader.finish()
        guard let path else { return nil }
        self.init(path: path)
        intervalMilliseconds = interval ?? intervalMilliseconds
        self.unhealthyAfter = unhealthyAfter ?? self.unhealthyAfter
        self.healthyAfter = healthyAfter ?? self.healthyAfter
    }
}

extension AgentPolicy.Cache {
    fileprivate init?(reading reader: ObjectReader) {
        let ttl = reader.duration("ttl")
        if reader.value("ttl") == nil { reader.report("ttl", "is missing") }
        let scope = reader.choice("scope", Scope.self)
        let entries = reader.count("entriesMax", in: 1...PolicyLimits.cacheEntriesMax)
        let bytes = reader.count("bytesMax", in: 1...PolicyLimits.cacheBytesMax)
        reader.finish()
        guard let ttl else { return nil }
        self.init(ttlMilliseconds: ttl, scope: scope ?? .user)
        entriesMax = entries ?? entriesMax
        bytesMax = bytes ?? bytesMax
    }
}

extension PromptTemplate {
    init?(reading reader: ObjectReader) {
        let system = reader.string("system", bytesMax: PolicyLimits.promptBytesMax)
        let user = reader.string(
            "user", required: true, bytesMax: PolicyLimits.promptBytesMax)
        reader.finish()
        guard let user else { return nil }
        self.init(system: system, user: user)
    }
}
