import WeirCore

/// What one sidecar needs of a policy, as documents again: a closed subset, which the same reader
/// accepts on its own. The order is by kind and name, so that one policy has one projection however
/// its documents were ordered. The documents must be those of a valid policy.
extension Policy {
    /// The agent itself, every tier as far as it concerns the agent, and the prices of its models.
    /// Empty when there is no such agent.
    package static func projection(of documents: [JSONValue], agent: String) -> [JSONValue] {
        let sorted = sortedByKind(documents)
        guard let own = sorted.first(where: { $0.kind == .agent && $0.name == agent }) else {
            return []
        }
        let models = models(of: own)
        return sorted.compactMap { document -> JSONValue? in
            switch document.kind {
            case .agent:
                // Falling back and calling is the caller's business and the gateway's, and so is
                // the health score.
                return document.name == agent ? document.forItsOwnSidecar : nil
            case .tier: return document.keepingAgents { $0 == agent }
            case .priceTable: return document.keepingPrices(of: models)
            case .mesh: return document.json
            case .requestType, .budget: return nil
            }
        }
    }

    /// All agents, request types, tiers, and the prices of all models. Where a secret is kept is
    /// no business of a gateway, and accounts come to it with the subject.
    package static func gatewayProjection(of documents: [JSONValue]) -> [JSONValue] {
        let sorted = sortedByKind(documents)
        let models = sorted.filter { $0.kind == .agent }
            .reduce(into: Set<String>()) { $0.formUnion(self.models(of: $1)) }
        return sorted.compactMap { document -> JSONValue? in
            switch document.kind {
            case .agent: return document.removing(["credential"])
            case .requestType, .tier, .mesh: return document.json
            case .priceTable: return document.keepingPrices(of: models)
            case .budget: return nil
            }
        }
    }

    private static func sortedByKind(_ documents: [JSONValue]) -> [NamedDocument] {
        let named = documents.compactMap(NamedDocument.init)
        return DocumentKind.allCases.flatMap { kind in
            named.filter { $0.kind == kind }.sorted { $0.name < $1.name }
        }
    }

    private static func models(of agent: NamedDocument) -> Set<String> {
        let models = agent.spec["models"]?.array ?? []
        let ids = models.compactMap { $0["id"]?.string }
        return ids.isEmpty ? [agent.name] : Set(ids)
    }
}

/// A document whose kind and name are known. Metadata beyond the name stays behind: no sidecar
/// needs labels.
private struct NamedDocument {
    let kind: DocumentKind
    let name: String
    let spec: JSONObject

    init?(_ document: JSONValue) {
        guard let kind = document["kind"]?.string.flatMap(DocumentKind.init(rawValue:)),
            let name = document["metadata"]?["name"]?.string, let spec = document["spec"]?.object
        else { return nil }
        self.kind = kind
        self.name = name
        self.spec = spec
    }

    var json: JSONValue { json(spec) }

    private func json(_ spec: JSONObject) -> JSONValue {
        [
            "apiVersion": .string(PolicyReader.apiVersion), "kind": .string(kind.rawValue),
            "metadata": ["name": .string(name)], "spec": .object(spec),
        ]
    }

    /// Without the agents that it falls back to or calls: who may be called is the caller's
    /// business and the gateway's, and those are not in the projection.
    var forItsOwnSidecar: JSONValue {
        var rest = spec
        rest["fallbacks"] = nil
        rest["healthWeight"] = nil
        rest["cache"] = nil
        if var outbound = spec["outbound"]?.object {
            outbound["agents"] = []
            rest["outbound"] = .object(outbound)
        }
        return json(rest)
    }

    func removing(_ keys: [String]) -> JSONValue {
        var rest = spec
        for key in keys { rest[key] = nil }
        return json(rest)
    }

    func keepingAgents(where keeps: (String) -> Bool) -> JSONValue {
        var rest = spec
        rest["agents"] = .array((spec["agents"]?.array ?? []).filter { keeps($0.string ?? "") })
        return json(rest)
    }

    /// By id, by alias, and by the name without its version. `nil` when no price is left.
    func keepingPrices(of models: Set<String>) -> JSONValue? {
        let wanted = models.union(models.compactMap(ModelName.withoutVersion))
        let prices = (spec["prices"]?.array ?? []).filter { price in
            ([price["model"] ?? .null] + (price["aliases"]?.array ?? [])).contains {
                wanted.contains($0.string ?? "")
            }
        }
        guard !prices.isEmpty else { return nil }
        var rest = spec
        rest["prices"] = .array(prices)
        return json(rest)
    }
}
