import WeirCore

extension TierPolicy {
    init?(name: String, reading spec: ObjectReader) {
        let budget = spec.money("monthlyBudget", required: true)
        let agents = spec.names("agents", countMax: PolicyLimits.documentsMax)
        if spec.value("agents") == nil { spec.report("agents", "is missing") }
        self.init(name: name, monthlyBudget: budget ?? .zero, agents: agents)
        dailyRequests = spec.integer("dailyRequests", in: 0...PolicyLimits.dailyRequestsMax)
        requestsPerMinute = spec.integer(
            "requestsPerMinute", in: 1...PolicyLimits.requestsPerMinuteMax)
        tokensPerMinute = spec.integer("tokensPerMinute", in: 1...PolicyLimits.tokensPerMinuteMax)
        rateLimit = spec.object("rateLimit").flatMap { AgentPolicy.RateLimit(reading: $0) }
        concurrentRequestsMax = spec.count(
            "concurrentRequestsMax", in: 1...PolicyLimits.requestsAtOnceMax)
        priority = spec.count("priority", in: -1_000...1_000) ?? priority
        readDowngrade(spec.object("downgrade"))
        readWarnings(spec)
        readWhenControlPlaneIsLost(spec)
        maxLease = spec.money("maxLease")
        if maxLease == .zero { spec.report("maxLease", "must be above 0") }
        outputTokensMax = spec.integer("outputTokensMax", in: 1...PolicyLimits.outputTokensMax)
        observe = spec.bool("observe") ?? observe
        readRequestTags(spec)
    }

    private mutating func readRequestTags(_ spec: ObjectReader) {
        let key = "requestTags"
        guard let value = spec.value(key) else { return }
        if value == "any" {
            requestTags = .any
            return
        }
        var tags: Set<String> = []
        for (value, path) in spec.elements(key, countMax: PolicyLimits.tagsPerTierMax) {
            guard let tag = value.string, Tags.isName(tag) else {
                spec.problems.add(path, BudgetPolicy.tagForm)
                continue
            }
            tags.insert(tag)
        }
        requestTags = .some(tags)
    }

    private mutating func readDowngrade(_ reader: ObjectReader?) {
        guard let reader else { return }
        downgradePreferPercent =
            reader.count("preferAtPercent", in: 0...100) ?? downgradePreferPercent
        downgradeRequirePercent =
            reader.count("requireAtPercent", in: 0...100) ?? downgradeRequirePercent
        if downgradePreferPercent > downgradeRequirePercent {
            reader.report("preferAtPercent", "is above requireAtPercent")
        }
        reader.finish()
    }

    private mutating func readWarnings(_ spec: ObjectReader) {
        guard spec.value("warnAtPercent") != nil else { return }
        var shares: [Int] = []
        for (value, path) in spec.elements(
            "warnAtPercent", countMax: PolicyLimits.warningsPerTierMax)
        {
            guard let share = value.int64, (1...100).contains(share) else {
                spec.problems.add(path, "must be an integer from 1 to 100")
                continue
            }
            if let last = shares.last, last >= share {
                spec.problems.add(path, "shares must rise")
            }
            shares.append(Int(share))
        }
        warnAtPercent = shares
    }

    private mutating func readWhenControlPlaneIsLost(_ spec: ObjectReader) {
        let key = "whenControlPlaneIsLost"
        guard let value = spec.value(key) else { return }
        switch value {
        case "insideLeases": whenControlPlaneIsLost = .insideLeases
        case "refuse": whenControlPlaneIsLost = .refuse
        case .object:
            guard let reader = spec.object(key) else { return }
            let amount = reader.money("allowUpTo", required: true)
            reader.finish()
            guard let amount else { return }
            if amount > monthlyBudget {
                reader.report("allowUpTo", "is above the monthly budget")
            }
            whenControlPlaneIsLost = .allowUpTo(amount)
        case .null, .bool, .number, .string, .array:
            spec.report(key, "must be insideLeases, refuse or {allowUpTo: AMOUNT}")
        }
    }
}

extension BudgetPolicy {
    fileprivate static let tagForm =
        "must be a tag: 1 to \(Tags.nameBytesMax) letters, digits and . _ : / @ -"

    init?(name: String, reading spec: ObjectReader) {
        let scope = spec.choice("scope", Scope.self, required: true)
        // There is one mesh, so its account needs no name.
        let id =
            scope == .mesh
            ? spec.string("id") ?? "mesh"
            : spec.string("id", required: true, bytesMax: PolicyLimits.modelIDBytesMax)
        if scope == .tag, let id, !Tags.isName(id) { spec.report("id", Self.tagForm) }
        let limit = spec.money("monthlyLimit", required: true)
        guard let scope, let id, let limit else { return nil }
        self.init(name: name, scope: scope, id: id, monthlyLimit: limit)
    }
}
