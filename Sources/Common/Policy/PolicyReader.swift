import WeirCore

/// Reads policy documents into a `Policy`, whole or not at all. Both planes run this: the control
/// plane before it activates a policy, a sidecar before it applies a projection. One pass finds
/// every problem; each has a JSON Pointer that begins with the document's place in the list
/// (`/documents/3/spec/timeouts/connect`).
package enum PolicyReader {
    package static let apiVersion = "weir.mesh/v1"

    package static func read(_ documents: [JSONValue]) throws(Problems) -> Policy {
        let problems = ProblemList()
        let root = JSONPointer(["documents"])
        guard documents.count <= PolicyLimits.documentsMax else {
            problems.add(root, "more than \(PolicyLimits.documentsMax) documents")
            try problems.throwIfAny()
            return Policy()
        }
        var draft = PolicyDraft(problems: problems)
        for (index, document) in documents.enumerated() {
            draft.add(document, at: root.appending(index))
        }
        draft.resolvePrices()
        draft.checkReferences()
        draft.applyMesh()
        try problems.throwIfAny()
        return draft.policy
    }
}

/// The kinds of documents, in the order in which a projection lists them.
enum DocumentKind: String, CaseIterable {
    case agent = "Agent"
    case requestType = "RequestType"
    case tier = "Tier"
    case priceTable = "PriceTable"
    case budget = "Budget"
    case mesh = "Mesh"
}

/// A policy while it is read: what was understood so far, and where each part stands, for the
/// problems that only the whole shows.
struct PolicyDraft {
    struct Place: Hashable {
        var kind: DocumentKind
        var name: String
    }

    let problems: ProblemList
    var policy = Policy()
    /// The path of each document.
    private(set) var places: [Place: JSONPointer] = [:]
    /// The path of each price, by model.
    var pricePlaces: [String: JSONPointer] = [:]
    private var meshName: String?

    init(problems: ProblemList) { self.problems = problems }

    /// The path of a document's `spec`.
    func spec(_ kind: DocumentKind, _ name: String) -> JSONPointer {
        (places[Place(kind: kind, name: name)] ?? JSONPointer([])).appending("spec")
    }

    mutating func add(_ document: JSONValue, at path: JSONPointer) {
        guard let reader = ObjectReader(document, at: path, problems) else { return }
        if let version = reader.string("apiVersion", required: true),
            version != PolicyReader.apiVersion
        {
            reader.report("apiVersion", "must be \"\(PolicyReader.apiVersion)\"")
        }
        let kind = reader.choice("kind", DocumentKind.self, required: true)
        let name = Self.name(reader)
        let spec = reader.object("spec", required: true)
        reader.finish()
        guard let kind, let name else { return }
        let place = Place(kind: kind, name: name)
        guard places[place] == nil else {
            problems.add(
                path.appending("metadata").appending("name"),
                "\(kind.rawValue) \"\(name)\" is there already")
            return
        }
        places[place] = path
        guard let spec else { return }
        add(kind, name, spec)
        spec.finish()
    }

    private mutating func add(_ kind: DocumentKind, _ name: String, _ spec: ObjectReader) {
        switch kind {
        case .agent: policy.agents[name] = AgentPolicy(name: name, reading: spec)
        case .requestType:
            policy.requestTypes[name] = RequestTypePolicy(name: name, reading: spec)
        case .tier: policy.tiers[name] = TierPolicy(name: name, reading: spec)
        case .priceTable: addPrices(PriceTable(name: name, reading: spec), spec)
        case .budget: policy.budgets[name] = BudgetPolicy(name: name, reading: spec)
        case .mesh: addMesh(MeshPolicy(reading: spec), name)
        }
    }

    private mutating func addMesh(_ mesh: MeshPolicy, _ name: String) {
        guard meshName == nil else {
            problems.add(
                (places[Place(kind: .mesh, name: name)] ?? JSONPointer([])).appending("kind"),
                "Mesh \"\(meshName ?? "")\" is there already, and a policy has one")
            return
        }
        meshName = name
        policy.mesh = mesh
    }

    /// A mesh that only observes is one whose agents and tiers all do: nothing else needs to know.
    mutating func applyMesh() {
        guard policy.mesh.observe else { return }
        for name in policy.agents.keys { policy.agents[name]?.observe = true }
        for name in policy.tiers.keys { policy.tiers[name]?.observe = true }
    }

    /// Gives a model that no table lists by its id the price of the entry that means it: by an
    /// alias, else by the name without its version. A version that a table lists has its own.
    mutating func resolvePrices() {
        let listed = policy.prices
        var byAlias: [String: ModelPrice] = [:]
        for price in listed.values.sorted(by: { $0.model < $1.model }) {
            let all = price.later.reduce(price.aliases) { all, next in
                all + next.aliases.filter { !all.contains($0) }
            }
            for (index, alias) in all.enumerated() {
                if listed[alias] == nil, byAlias[alias] == nil {
                    byAlias[alias] = price
                } else if let place = pricePlaces[price.model] {
                    problems.add(
                        place.appending("aliases").appending(index),
                        "\"\(alias)\" has a price already")
                }
            }
        }
        for model in policy.agents.values.flatMap({ $0.models.map(\.id) }) {
            guard listed[model] == nil else { continue }
            let undated = ModelName.withoutVersion(model)
            let found = byAlias[model] ?? undated.flatMap { listed[$0] ?? byAlias[$0] }
            guard let price = found else { continue }
            policy.prices[model] = price.renamed(model)
        }
    }

    private mutating func addPrices(_ table: PriceTable?, _ spec: ObjectReader) {
        guard let table else { return }
        let path = spec.path.appending("prices")
        for (index, price) in table.prices.enumerated() {
            add(price, at: path.appending(index))
        }
    }

    private static func name(_ reader: ObjectReader) -> String? {
        guard let metadata = reader.object("metadata", required: true) else { return nil }
        let name = metadata.string("name", required: true, bytesMax: PolicyLimits.nameBytesMax)
        // Labels and annotations are for people and tools; they change nothing.
        _ = metadata.value("labels")
        _ = metadata.value("annotations")
        metadata.finish()
        guard let name else { return nil }
        guard name.isPolicyName else {
            metadata.report(
                "name",
                "must be lower-case letters, digits, \"-\" and \"_\", and begin with one of the "
                    + "first two")
            return nil
        }
        return name
    }
}

extension String {
    /// Names go into paths, metrics and account keys, so they hold nothing that needs escaping.
    var isPolicyName: Bool {
        guard let first = utf8.first, first != 45, first != 95 else { return false }
        return utf8.allSatisfy {
            (97...122).contains($0) || (48...57).contains($0) || $0 == 45 || $0 == 95
        }
    }
}
