import WeirCore

extension JSONSchema {
    /// Reads a schema; problems go to the list. `whole`: what the root describes, if that must be
    /// an object.
    init?(
        _ document: JSONValue, at path: JSONPointer, _ problems: ProblemList,
        objectNamed whole: String? = "`data`"
    ) {
        var reader = SchemaReader(problems: problems)
        guard let root = reader.node(document, at: path, depth: 0) else { return nil }
        if let whole, root.kinds != [.object] {
            problems.add(path.appending("type"), "must be \"object\": \(whole) is an object")
        }
        self.document = document
        self.root = root
    }
}

/// Reads the nodes of one schema and counts them.
private struct SchemaReader {
    let problems: ProblemList
    private var nodesLeft = PolicyLimits.schemaNodesMax

    init(problems: ProblemList) { self.problems = problems }

    /// - Parameter declared: properties that stand beside an alternative, and that it may demand.
    mutating func node(
        _ value: JSONValue, at path: JSONPointer, depth: Int, declared: Set<String> = []
    ) -> JSONSchema.Node? {
        nodesLeft -= 1
        guard depth <= PolicyLimits.schemaDepthMax, nodesLeft >= 0 else {
            problems.add(path, "the schema is too deep or too large")
            return nil
        }
        guard let reader = ObjectReader(value, at: path, problems) else { return nil }
        var node = JSONSchema.Node()
        node.kinds = kinds(reader)
        node.choices = choices(reader)
        readObject(reader, &node, depth, declared)
        readArray(reader, &node, depth)
        node.length = counts(reader, "minLength", "maxLength")
        node.format = reader.choice("format", JSONSchema.Format.self)
        node.range = range(reader)
        for annotation in Self.annotations { _ = reader.value(annotation) }
        reader.finish()
        return node
    }

    private static let annotations = [
        "$schema", "$comment", "title", "description", "examples", "default", "deprecated",
    ]

    private mutating func readObject(
        _ reader: ObjectReader, _ node: inout JSONSchema.Node, _ depth: Int,
        _ outer: Set<String>
    ) {
        for (key, value, path) in reader.members(
            "properties", countMax: PolicyLimits.schemaNodesMax)
        {
            node.properties[key] = self.node(value, at: path, depth: depth + 1)
        }
        node.additional = additional(reader, depth)
        node.memberCount = counts(reader, "minProperties", "maxProperties")
        node.required = reader.names("required", countMax: PolicyLimits.schemaNodesMax)
        let declared = outer.union(node.properties.keys)
        for name in node.required where !declared.contains(name) {
            reader.report("required", "\"\(name)\" is not among the properties")
        }
        let key = "anyOf"
        guard reader.value(key) != nil else { return }
        for (value, path) in reader.elements(
            key, countMax: PolicyLimits.schemaAlternativesMax, required: true)
        {
            let alternative = self.node(value, at: path, depth: depth + 1, declared: declared)
            if let alternative { node.alternatives.append(alternative) }
        }
    }

    private mutating func readArray(
        _ reader: ObjectReader, _ node: inout JSONSchema.Node, _ depth: Int
    ) {
        if let value = reader.value("items"),
            let items = self.node(value, at: reader.path.appending("items"), depth: depth + 1)
        {
            node.items = [items]
        }
        node.count = counts(reader, "minItems", "maxItems")
        node.isUnique = reader.bool("uniqueItems") ?? false
    }

    private mutating func additional(
        _ reader: ObjectReader, _ depth: Int
    ) -> JSONSchema.Additional {
        let key = "additionalProperties"
        guard let value = reader.value(key) else { return .any }
        if let bool = value.bool { return bool ? .any : .none }
        return node(value, at: reader.path.appending(key), depth: depth + 1).map { .each($0) }
            ?? .any
    }

    private func kinds(_ reader: ObjectReader) -> Set<JSONSchema.Kind> {
        guard let value = reader.value("type") else { return [] }
        let names = value.array ?? [value]
        let kinds = names.compactMap { $0.string.flatMap(JSONSchema.Kind.init(rawValue:)) }
        if kinds.count != names.count || names.isEmpty {
            let known = JSONSchema.Kind.allCases.map(\.rawValue).joined(separator: ", ")
            reader.report("type", "must be one or more of \(known)")
        }
        return Set(kinds)
    }

    private func choices(_ reader: ObjectReader) -> [JSONValue]? {
        let constant = reader.value("const")
        guard reader.value("enum") != nil else { return constant.map { [$0] } }
        if constant != nil { reader.report("const", "stands beside an enum: one of them") }
        return reader.elements("enum", countMax: PolicyLimits.schemaEnumMax, required: true)
            .map(\.value)
    }

    private func counts(
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

    private func range(_ reader: ObjectReader) -> JSONSchema.Bounds<Double> {
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
