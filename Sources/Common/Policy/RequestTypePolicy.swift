import WeirCore

/// One type of analysis (kind `RequestType`): what its `data` looks like, and the acyclic plan of
/// steps over agents.
package struct RequestTypePolicy: Hashable, Sendable {
    package struct Step: Hashable, Sendable {
        package var name: String
        /// The agents for each tier, the preferred one first. A tier that is absent skips the step.
        package var agentsByTier: [String: [String]]
        package var after: [String] = []
        /// Names for the agent, from pointers into `{"data": …, "steps": {NAME: {"result": …}}}`.
        package var input: [String: JSONPointer] = [:]
        package var required = true
        package var timeoutMilliseconds: Int64?

        package init(name: String, agentsByTier: [String: [String]]) {
            self.name = name
            self.agentsByTier = agentsByTier
        }
    }

    package var name: String
    /// A JSON Schema in the subset that the policy's documentation states.
    package var inputSchema: JSONValue
    package var steps: [Step]
    package var timeoutMilliseconds: Int64 = 30_000

    package init(name: String, inputSchema: JSONValue, steps: [Step]) {
        self.name = name
        self.inputSchema = inputSchema
        self.steps = steps
    }
}
