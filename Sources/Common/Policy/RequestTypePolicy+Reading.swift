import WeirCore

extension RequestTypePolicy {
    init?(name: String, reading spec: ObjectReader) {
        let schema = spec.value("inputSchema", required: true).flatMap {
            JSONSchema($0, at: spec.path.appending("inputSchema"), spec.problems)
        }
        let timeout = spec.duration("timeout")
        let elements = spec.elements(
            "steps", countMax: PolicyLimits.stepsMax, required: true)
        var steps: [Step] = []
        for (value, path) in elements {
            guard let reader = ObjectReader(value, at: path, spec.problems) else { continue }
            // A step that could not be read keeps its place: problems of the plan name it.
            steps.append(Step(reading: reader))
            reader.finish()
        }
        guard let schema else { return nil }
        self.init(name: name, inputSchema: schema, steps: steps)
        timeoutMilliseconds = timeout ?? timeoutMilliseconds
    }
}

extension RequestTypePolicy.Step {
    fileprivate init(reading reader: ObjectReader) {
        let name = reader.string("name", required: true, bytesMax: PolicyLimits.nameBytesMax)
        if let name, !name.isPolicyName {
            reader.report("name", "must be lower-case letters, digits, \"-\" and \"_\"")
        }
        var agentsByTier: [String: [String]] = [:]
        for (tier, value, path) in reader.members(
            "agents", countMax: PolicyLimits.tiersMax, required: true)
        {
            guard let array = value.array else {
                reader.problems.add(path, "an array of agents is needed")
                continue
            }
            guard !array.isEmpty, array.count <= PolicyLimits.agentsPerStepMax else {
                reader.problems.add(
                    path,
                    "must have 1 to \(PolicyLimits.agentsPerStepMax) agents; "
                        + "a tier that skips the step is left out")
                continue
            }
            agentsByTier[tier] = ObjectReader.names(
                array.enumerated().map { ($0.element, path.appending($0.offset)) },
                reader.problems)
        }
        self.init(name: name ?? reader.path.description, agentsByTier: agentsByTier)
        after = reader.names("after", countMax: PolicyLimits.stepsMax)
        for (key, value, path) in reader.members(
            "input", countMax: PolicyLimits.inputsPerStepMax, required: true)
        {
            input[key] = Self.input(value, at: path, reader.problems)
        }
        prompt = reader.object("prompt").flatMap { PromptTemplate(reading: $0) }
        output = reader.choice("output", RequestTypePolicy.Output.self) ?? output
        resultSchema = reader.value("resultSchema").flatMap {
            JSONSchema(
                $0, at: reader.path.appending("resultSchema"), reader.problems, objectNamed: nil)
        }
        required = reader.bool("required") ?? required
        timeoutMilliseconds = reader.duration("timeout")
    }

    /// A pointer, or `{from: POINTER, optional: BOOL}`.
    private static func input(
        _ value: JSONValue, at path: JSONPointer, _ problems: ProblemList
    ) -> RequestTypePolicy.Input? {
        if let text = value.string {
            guard let pointer = JSONPointer(text) else {
                problems.add(path, "not a JSON Pointer")
                return nil
            }
            return RequestTypePolicy.Input(pointer: pointer)
        }
        guard let reader = ObjectReader(value, at: path, problems) else { return nil }
        let text = reader.string("from", required: true)
        let isOptional = reader.bool("optional") ?? false
        reader.finish()
        guard let text else { return nil }
        guard let pointer = JSONPointer(text) else {
            reader.report("from", "not a JSON Pointer")
            return nil
        }
        return RequestTypePolicy.Input(pointer: pointer, isOptional: isOptional)
    }
}
