import WeirCore

/// Where the answers of an agent say what was used, where that is in none of the forms that are
/// known. Counts of tokens; `input` and `output` are the whole of each, the others are parts.
package struct UsagePlaces: Hashable, Sendable {
    /// A header field of the answer, a place in its body (or in an event of it), or both.
    package struct Place: Hashable, Sendable {
        /// In lower case.
        package var header: String?
        /// Through objects only.
        package var pointer: JSONPointer?
        package init(header: String? = nil, pointer: JSONPointer? = nil) {
            self.header = header
            self.pointer = pointer
        }
    }

    package var input: Place?
    package var cachedInput: Place?
    package var cacheWrite: Place?
    package var output: Place?
    package var reasoning: Place?

    package init() {}

    package var all: [Place] {
        [input, cachedInput, cacheWrite, output, reasoning].compactMap(\.self)
    }

    /// What Hugging Face's text generation says in header fields, and in the last event of a
    /// stream.
    package static let textGeneration: UsagePlaces = {
        var places = UsagePlaces()
        places.input = Place(
            header: "x-prompt-tokens", pointer: JSONPointer(["details", "input_length"]))
        places.output = Place(
            header: "x-generated-tokens", pointer: JSONPointer(["details", "generated_tokens"]))
        return places
    }()
}

extension UsagePlaces {
    init?(reading reader: ObjectReader) {
        input = Self.place("input", reader)
        cachedInput = Self.place("cachedInput", reader)
        cacheWrite = Self.place("cacheWrite", reader)
        output = Self.place("output", reader)
        reasoning = Self.place("reasoning", reader)
        if input == nil, output == nil { reader.report("output", "or input is needed") }
        // The value at one of them cannot be an object on the way to the other.
        let pointers = all.compactMap(\.pointer?.tokens)
        for (index, one) in pointers.enumerated() {
            for (other, two) in pointers.enumerated() where index != other {
                if two.starts(with: one) {
                    reader.problems.add(
                        reader.path, "\(JSONPointer(two)) leads through \(JSONPointer(one))")
                }
            }
        }
        reader.finish()
    }

    private static func place(_ key: String, _ reader: ObjectReader) -> Place? {
        guard let object = reader.object(key) else { return nil }
        defer { object.finish() }
        let header = object.string("header", bytesMax: PolicyLimits.nameBytesMax)
        if let header, !isFieldName(header) {
            object.report("header", "must be the name of a header field in lower case")
        }
        let pointer = object.usagePointer("pointer")
        if header == nil, pointer == nil, object.value("pointer") == nil {
            object.report("pointer", "or header is needed")
        }
        return Place(header: header, pointer: pointer)
    }

    private static func isFieldName(_ name: String) -> Bool {
        !name.isEmpty
            && name.utf8.allSatisfy {
                (97...122).contains($0) || (48...57).contains($0) || $0 == 45 || $0 == 95
            }
    }
}

extension ObjectReader {
    /// A pointer that a scanner of fixed size can follow.
    func usagePointer(_ key: String) -> JSONPointer? {
        guard let text = string(key, bytesMax: PolicyLimits.pathBytesMax) else { return nil }
        guard let pointer = JSONPointer(text),
            (1...PolicyLimits.usagePointerTokensMax).contains(pointer.tokens.count),
            pointer.tokens.allSatisfy({
                (1...PolicyLimits.usageKeyBytesMax).contains($0.utf8.count)
            })
        else {
            report(
                key,
                "must be a JSON Pointer of at most \(PolicyLimits.usagePointerTokensMax) names, "
                    + "each of at most \(PolicyLimits.usageKeyBytesMax) bytes")
            return nil
        }
        return pointer
    }
}
