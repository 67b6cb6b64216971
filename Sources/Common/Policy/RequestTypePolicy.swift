import WeirCore

/// One type of analysis (kind `RequestType`): what its `data` looks like, and the acyclic plan of
/// steps over agents.
package struct RequestTypePolicy: Hashable, Sendable {
    package struct Input: Hashable, Sendable {
        /// Into `{"data": …, "steps": {NAME: {"result": …}}}`.
        package var pointer: JSONPointer
        /// An absent optional input is left out; any other one skips the step.
        package var isOptional: Bool

        package init(pointer: JSONPointer, isOptional: Bool = false) {
            self.pointer = pointer
            self.isOptional = isOptional
        }

        /// The step whose result this is; `nil` for the request's data.
        package var step: String? {
            pointer.tokens.count >= 2 && pointer.tokens.first == "steps" ? pointer.tokens[1] : nil
        }
    }

    /// How the words of a chat agent are read.
    package enum Output: String, Sendable, CaseIterable {
        case text
        /// One JSON value, asked for as such; anything else breaks the agent's protocol.
        case json
    }

    package struct Step: Hashable, Sendable {
        package var name: String
        /// The agents for each tier, the preferred one first. A tier that is absent skips the step.
        package var agentsByTier: [String: [String]]
        package var after: [String] = []
        /// What the agent gets, by the names that it knows.
        package var input: [String: Input] = [:]
        /// In place of the agent's own, because one model serves many kinds of steps.
        package var prompt: PromptTemplate?
        package var output = Output.text
        /// What a result must be, whichever agent it comes from. One that is not is that agent's
        /// failure, so the next agent is tried.
        package var resultSchema: JSONSchema?
        package var required = true
        package var timeoutMilliseconds: Int64?

        package init(name: String, agentsByTier: [String: [String]]) {
            self.name = name
            self.agentsByTier = agentsByTier
        }

        /// The steps that must have ended before this one begins: those named, and those whose
        /// results it takes.
        package var dependencies: Set<String> {
            Set(after).union(input.values.compactMap(\.step))
        }
    }

    package var name: String
    package var inputSchema: JSONSchema
    package var steps: [Step]
    package var timeoutMilliseconds: Int64 = 30_000

    package init(name: String, inputSchema: JSONSchema, steps: [Step]) {
        self.name = name
        self.inputSchema = inputSchema
        self.steps = steps
    }
}
