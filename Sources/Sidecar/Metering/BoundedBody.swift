import WeirCore
import WeirPolicy

/// A request's body while its bound is looked for and written into it: what the bounders of all
/// chat protocols read alike. Fields with the value `null` count as absent, as they do for the
/// providers.
struct BoundedBody {
    let rules: WorstCase
    /// As the caller sent it.
    let original: JSONObject
    /// As it goes upstream.
    var object: JSONObject
    /// Set where the output bound is not the caller's.
    var writtenOutputMax: Int64?

    init(_ bytes: [UInt8], _ rules: WorstCase) throws(BoundRefusal) {
        let value: JSONValue
        do {
            value = try JSON.parse(bytes)
        } catch {
            throw BoundRefusal(
                error.kind == .duplicateKey ? .duplicateKey : .malformed, error.description)
        }
        guard let object = value.object else {
            throw BoundRefusal(.invalid, "The body must be a JSON object, not \(value.kindName).")
        }
        self.rules = rules
        original = object
        self.object = object
    }

    /// `nil` where the caller's goes upstream as it came.
    var replacement: [UInt8]? { object == original ? nil : JSONValue.object(object).bytes }

    /// Writes the model's id in the place of an alias, of the agent's name or of nothing.
    mutating func resolveModel() throws(BoundRefusal) -> String {
        switch object["model"] {
        case nil, .null?:
            object["model"] = .string(rules.agent.defaultModel)
            return rules.agent.defaultModel
        case .string(let name)?:
            let model = name == rules.agent.name ? rules.agent.defaultModel : nil
            guard let model = rules.agent.model(named: name) ?? model else {
                throw Self.invalid("/model", "the agent \(rules.agent.name) has no such model")
            }
            if model != name { object["model"] = .string(model) }
            return model
        default: throw Self.invalid("/model", "must be a string")
        }
    }

    /// The output bound of one answer, written into the body where it says none or too much.
    ///
    /// - Parameters:
    ///   - fields: those that the provider may obey.
    ///   - missing: the one that is written where there is none of them.
    mutating func boundOutput(
        _ fields: [String], missing: String
    ) throws(BoundRefusal) -> Int64 {
        let ceiling = rules.outputTokensMax ?? .max
        var bound: Int64?
        for field in fields {
            guard let requested = try integer(field, atLeast: 1) else { continue }
            let allowed = min(requested, ceiling)
            if allowed != requested {
                object[field] = .number(JSONNumber(allowed))
                writtenOutputMax = allowed
            }
            // Two fields at once: whichever the provider obeys, the larger one bounds.
            bound = max(bound ?? 0, allowed)
        }
        if let bound { return min(bound, Int64(UInt32.max)) }
        let allowed = max(1, min(rules.agent.outputTokensMax, ceiling))
        object[missing] = .number(JSONNumber(allowed))
        writtenOutputMax = allowed
        return min(allowed, Int64(UInt32.max))
    }

    func streams() throws(BoundRefusal) -> Bool {
        switch original["stream"] {
        case nil, .null?: return false
        case .bool(let streams)?: return streams
        default: throw Self.invalid("/stream", "must be a boolean")
        }
    }

    func integer(_ field: String, atLeast minimum: Int64) throws(BoundRefusal) -> Int64? {
        guard let value = original[field], value != .null else { return nil }
        guard let number = value.int64, number >= minimum else {
            throw Self.invalid("/" + field, "must be an integer of at least \(minimum)")
        }
        return number
    }

    static func invalid(_ path: String, _ message: String) -> BoundRefusal {
        BoundRefusal(
            .invalid, "The field \(path) \(message).",
            problem: Problem(path: path, message: message))
    }
}

extension JSONPointer {
    func problem(_ message: String) -> Problem {
        Problem(path: description, message: message)
    }
}
