import WeirCore

/// The documents of a policy, as text brings them: YAML with one or many documents; or JSON, either
/// one document, an array of them, or an object with `documents` (a compiled policy is one).
package enum PolicyText {
    package enum Format: Sendable { case json, yaml }

    package static func documents(
        in bytes: [UInt8], format: Format
    ) throws(Problems) -> [JSONValue] {
        let documents: [JSONValue]
        switch format {
        case .json: documents = try readJSON(bytes)
        case .yaml:
            guard let text = String(validating: bytes, as: UTF8.self) else {
                throw Problems([Problem(path: "", message: "not UTF-8")])
            }
            let read = try YAMLDocuments.read(text)
            // JSON is YAML too, so a file may hold any of the forms.
            if let only = read.first, read.count == 1 {
                documents = unwrapped(only)
            } else {
                documents = read
            }
        }
        guard !documents.isEmpty else {
            throw Problems([Problem(path: "/documents", message: "there is no document")])
        }
        return documents
    }

    private static func readJSON(_ bytes: [UInt8]) throws(Problems) -> [JSONValue] {
        do {
            return unwrapped(try JSON.parse(bytes))
        } catch {
            throw Problems([Problem(path: "", message: "not JSON: \(error)")])
        }
    }

    private static func unwrapped(_ value: JSONValue) -> [JSONValue] {
        value.array ?? value["documents"]?.array ?? [value]
    }
}
