import WeirCore

extension JSONSchema {
    /// Reads a schema; problems go to the list. The root must be an object, because `data` is one.
    init?(_ document: JSONValue, at path: JSONPointer, _ problems: ProblemList) {
        var nodesLeft = PolicyLimits.schemaNodesMax
        guard
            let root = Node.read(
                document, at: path, depth: 0, nodesLeft: &nodesLeft, problems: problems)
        else { return nil }
        if root.kinds != [.object] {
            problems.add(path.appending("type"), "must be \"object\": `data` is an object")
        }
        self.document = document
        self.root = root
    }
}

extension JSONSchema.Node {
    static func read(
        _ value: JSONValue, at path: JSONPointer, depth: Int, nodesLeft: inout Int,
        problems: ProblemList
    ) -> JSONSchema.Node? {
        nodesLeft -= 1
        guard depth <= PolicyLimits.schemaDepthMax, nodesLeft >= 0 else {
            problems.add(path, "the schema is too deep or too large")
            return nil
        }
        guard let reader = ObjectReader(value, at: path, problems) else { return nil }
        var properties: [String: JSONSchema.Node] = [:]
        for (key, value, path) in reader.members(
            "properties", countMax: PolicyLimits.schemaNodesMax)
        {
            properties[key] = read(
                value, at: path, depth: depth + 1, nodesLeft: &nodesLeft, problems: problems)
        }
        var items: JSONSchema.Node?
        if let value = reader.value("items") {
            items = read(
                value, at: path.appending("items"), depth: depth + 1, nodesLeft: &nodesLeft,
                problems: problems)
        }
        let additional = readAdditional(reader, depth: depth, nodesLeft: &nodesLeft)
        let required = reader.names("required", countMax: PolicyLimits.schemaNodesMax)
        for name in required where properties[name] == nil {
            reader.report("required", "\"\(name)\" is not among the properties")
        }
        let node = JSONSchema.Node(
            kinds: kinds(reader), required: required, properties: properties,
            additional: additional, items: items, choices: choices(reader),
            length: counts(reader, "minLength", "maxLength"),
            count: counts(reader, "minItems", "maxItems"), range: range(reader))
        for annotation in ["$schema", "title", "description", "examples", "default"] {
            _ = reader.value(annotation)
        }
        reader.finish()
        return node
    }

    private static func readAdditional(
        _ reader: ObjectReader, depth: Int, nodesLeft: inout Int
    ) -> JSONSchema.Additional {
        guard let value = reader.value("additionalProperties") else { return .any }
        if let bool = value.bool { return bool ? .any : .none }
        return read(
            value, at: reader.path.appending("additionalProperties"), depth: depth + 1,
            nodesLeft: &nodesLeft, problems: reader.problems
        ).map { .each($0) } ?? .any
    }

    private static func kinds(_ reader: ObjectReader) -> Set<JSONSchema.Kind> {
        guard let value = reader.value("type") else { return [] }
        let names = value.array ?? [value]
        let kinds = names.compactMap { $0.string.flatMap(JSONSchema.Kind.init(rawValue:)) }
        if kinds.count != names.count || names.isEmpty {
            let known = JSONSchema.Kind.allCases.map(\.rawValue).joined(separator: ", ")
            reader.report("type", "must be one or more of \(known)")
        }
        return Set(kinds)
    }

    private static func choices(_ reader: ObjectReader) -> [JSONValue]? {
        guard reader.value("enum") != nil else { return nil }
        return reader.elements("enum", countMax: PolicyLimits.schemaEnumMax, required: true)
            .map(\.value)
    }

    private static func counts(
        _ reader: ObjectReader, _ min: String, _ max: String
    ) -> JSONSchema.Bounds<Int> {
        let bounds = JSONSchema.Bounds(
            min: reader.count(min, in: 0...Int64(Int32.max)),
            max: reader.count(max, in: 0...Int64(Int32.max)))
        if let low = bounds.min, let high = bounds.max, low > high {
            reader.report(max, "is below \(min)")
        }
        return bounds
    }

    private static func range(_ reader: ObjectReader) -> JSONSchema.Bounds<Double> {
        func number(_ key: String) -> Double? {
            guard let value = reader.value(key) else { return nil }
            if value.double == nil { reader.report(key, "a number is needed") }
            return value.double
        }
        let bounds = JSONSchema.Bounds(
            min: number("minimum"), max: number("maximum"),
            exclusiveMin: number("exclusiveMinimum"), exclusiveMax: number("exclusiveMaximum"))
        if let low = bounds.min, let high = bounds.max, low > high {
            reader.report("maximum", "is below minimum")
        }
        return bounds
    }
}
