import WeirCore

/// What a new bundle changes, for people and for a dry run: documents by kind and name, and in a
/// changed document the fields, by their JSON Pointers.
struct PolicyDiff: Hashable, Sendable {
    struct Field: Hashable, Sendable {
        var path: String
        /// Absent where the field was added or removed.
        var from: JSONValue?
        var to: JSONValue?
    }

    struct Change: Hashable, Sendable {
        enum Operation: String, Sendable { case added, removed, changed }
        var kind: String
        var name: String
        var operation: Operation
        var fields: [Field] = []
    }

    private struct Key: Hashable, Comparable {
        var kind: String
        var name: String

        init(_ document: JSONValue) {
            kind = document["kind"]?.string ?? ""
            name = document["metadata"]?["name"]?.string ?? ""
        }

        static func < (left: Key, right: Key) -> Bool {
            (left.kind, left.name) < (right.kind, right.name)
        }
    }

    /// By kind and name.
    private(set) var changes: [Change] = []

    init(from old: [JSONValue], to new: [JSONValue]) {
        let before = Self.byKey(old)
        let after = Self.byKey(new)
        for key in Set(before.keys).union(after.keys).sorted() {
            let operation: Change.Operation
            var fields: [Field] = []
            switch (before[key], after[key]) {
            case (nil, _): operation = .added
            case (_, nil): operation = .removed
            case (let left?, let right?):
                guard left != right else { continue }
                operation = .changed
                Self.compare(left, right, at: JSONPointer([]), into: &fields)
            }
            changes.append(
                Change(kind: key.kind, name: key.name, operation: operation, fields: fields))
        }
    }

    /// Of documents with one key, which no valid bundle has, the last counts.
    private static func byKey(_ documents: [JSONValue]) -> [Key: JSONValue] {
        Dictionary(documents.map { (Key($0), $0) }, uniquingKeysWith: { $1 })
    }

    private static func compare(
        _ old: JSONValue, _ new: JSONValue, at path: JSONPointer, into fields: inout [Field]
    ) {
        guard old != new, fields.count < ServerLimits.fieldChangesMax else { return }
        guard let left = old.object, let right = new.object else {
            fields.append(Field(path: path.description, from: old, to: new))
            return
        }
        for (key, value) in left.members {
            guard let other = right[key] else {
                fields.append(Field(path: path.appending(key).description, from: value, to: nil))
                continue
            }
            compare(value, other, at: path.appending(key), into: &fields)
        }
        for (key, value) in right.members where left[key] == nil {
            fields.append(Field(path: path.appending(key).description, from: nil, to: value))
        }
    }

    var json: JSONValue {
        .array(
            changes.map { change in
                var object: JSONObject = [
                    "kind": .string(change.kind), "name": .string(change.name),
                    "change": .string(change.operation.rawValue),
                ]
                if !change.fields.isEmpty {
                    object["fields"] = .array(change.fields.map(Self.json))
                }
                return .object(object)
            })
    }

    private static func json(_ field: Field) -> JSONValue {
        var object: JSONObject = ["path": .string(field.path)]
        object["from"] = field.from
        object["to"] = field.to
        return .object(object)
    }
}
