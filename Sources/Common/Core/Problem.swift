/// One thing that is wrong with a document, and where: `path` is a JSON Pointer (RFC 6901).
package struct Problem: Error, Hashable, Sendable, Codable, CustomStringConvertible {
    package let path: String
    package let message: String

    package init(path: String, message: String) {
        self.path = path
        self.message = message
    }

    package var description: String { "\(path.isEmpty ? "/" : path): \(message)" }
}

/// Everything that is wrong with a document; never empty.
package struct Problems: Error, Hashable, Sendable, CustomStringConvertible {
    package let list: [Problem]

    package init(_ list: [Problem]) {
        precondition(!list.isEmpty, "Problems without a problem")
        self.list = list
    }

    package var description: String { list.map(\.description).joined(separator: "\n") }
}
