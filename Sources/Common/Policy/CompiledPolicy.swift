import WeirCore

/// A policy as one file: documents with their version. `weir policy compile` writes it for a
/// sidecar that stands alone, and every sidecar keeps the last good one in this form.
package struct CompiledPolicy: Hashable, Sendable {
    package static let kind = "Policy"

    package var version: PolicyVersion
    package var documents: [JSONValue]

    package init(version: PolicyVersion, documents: [JSONValue]) {
        self.version = version
        self.documents = documents
    }

    /// Reads the file's form. Whether the hash is that of the documents is for the caller to see,
    /// by `canonicalBytes`; whether they are a policy, for `PolicyReader`.
    package init(_ file: JSONValue) throws(Problems) {
        let problems = ProblemList()
        var version = PolicyVersion(epoch: 0, number: 0, hash: "")
        var documents: [JSONValue] = []
        if let reader = ObjectReader(file, at: JSONPointer([]), problems) {
            for (key, expected) in [("apiVersion", PolicyReader.apiVersion), ("kind", Self.kind)] {
                if let text = reader.string(key, required: true), text != expected {
                    reader.report(key, "must be \"\(expected)\"")
                }
            }
            if let object = reader.object("version", required: true) {
                version.epoch = object.integer("epoch", in: 0...Int64.max, required: true) ?? 0
                version.number = object.integer("number", in: 0...Int64.max, required: true) ?? 0
                version.hash = object.string("hash", required: true) ?? ""
                object.finish()
            }
            documents = reader.elements(
                "documents", countMax: PolicyLimits.documentsMax, required: true
            ).map(\.value)
            reader.finish()
        }
        try problems.throwIfAny()
        self.init(version: version, documents: documents)
    }

    package var json: JSONValue {
        [
            "apiVersion": .string(PolicyReader.apiVersion), "kind": .string(Self.kind),
            "version": [
                "epoch": .number(JSONNumber(version.epoch)),
                "number": .number(JSONNumber(version.number)), "hash": .string(version.hash),
            ],
            "documents": .array(documents),
        ]
    }

    /// What the hash of a version is taken of: SHA-256 of this, in lower-case hexadecimal.
    package static func canonicalBytes(of documents: [JSONValue]) -> [UInt8] {
        JSONValue.array(documents).canonicalBytes
    }
}
