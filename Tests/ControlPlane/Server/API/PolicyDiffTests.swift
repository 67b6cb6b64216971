import Testing
import WeirCore

@testable import ControlPlaneServer

@Suite("What a new bundle changes")
struct PolicyDiffTests {
    private func document(_ name: String, _ spec: JSONValue) -> JSONValue {
        ["kind": "Agent", "metadata": ["name": .string(name)], "spec": spec]
    }

    @Test func documentsAreComparedByKindAndNameWhateverTheirOrder() {
        let a = document("a", ["x": 1])
        let b = document("b", ["x": 1])
        #expect(PolicyDiff(from: [a, b], to: [b, a]).changes.isEmpty)
        let diff = PolicyDiff(from: [a], to: [b])
        #expect(diff.changes.map(\.operation) == [.removed, .added])
        #expect(diff.changes.map(\.name) == ["a", "b"])
    }

    @Test func changedFieldsHavePointers() {
        let old = document("a", ["keep": 1, "gone": true, "list": [1, 2], "in/ner": ["x": "1"]])
        let new = document("a", ["keep": 1, "new": .null, "list": [1, 3], "in/ner": ["x": "2"]])
        let fields = PolicyDiff(from: [old], to: [new]).changes.first?.fields ?? []
        #expect(
            fields == [
                PolicyDiff.Field(path: "/spec/gone", from: true, to: nil),
                PolicyDiff.Field(path: "/spec/list", from: [1, 2], to: [1, 3]),
                PolicyDiff.Field(path: "/spec/in~1ner/x", from: "1", to: "2"),
                PolicyDiff.Field(path: "/spec/new", from: nil, to: .null),
            ])
    }

    @Test func listsABoundedNumberOfFields() {
        func wide(_ value: Int64) -> JSONValue {
            var spec = JSONObject()
            for number in 0..<500 { spec["f\(number)"] = .number(JSONNumber(value)) }
            return document("a", .object(spec))
        }
        let diff = PolicyDiff(from: [wide(1)], to: [wide(2)])
        #expect(diff.changes.first?.fields.count == ServerLimits.fieldChangesMax)
    }
}
