import Testing
import WeirCore

@testable import WeirPolicy

@Suite struct JSONSchemaTests {
    private func schema(_ text: String) throws -> JSONSchema {
        let problems = ProblemList()
        let schema = JSONSchema(try JSON.parse(text), at: JSONPointer([]), problems)
        #expect(problems.list.isEmpty)
        return try #require(schema)
    }

    /// A property `x` of the given schema, an instance of it, and the places of its problems.
    @Test(
        arguments: [
            (#"{"type": "string"}"#, #""a""#, []),
            (#"{"type": "string"}"#, "1", ["/data/x"]),
            (#"{"type": ["string", "null"]}"#, "null", []),
            (#"{"type": ["string", "null"]}"#, "true", ["/data/x"]),
            (#"{"type": "integer"}"#, "3", []),
            (#"{"type": "integer"}"#, "3.0", []),
            (#"{"type": "integer"}"#, "3.5", ["/data/x"]),
            (#"{"type": "integer"}"#, "1e400", nil),
            (#"{"minLength": 2, "maxLength": 3}"#, #""a""#, ["/data/x"]),
            (#"{"minLength": 2, "maxLength": 3}"#, #""äöü""#, []),
            (#"{"maxLength": 1}"#, #""e\u0301""#, ["/data/x"]),
            (#"{"maxLength": 1}"#, "[1, 2]", []),
            (#"{"minimum": 1, "exclusiveMaximum": 2}"#, "1", []),
            (#"{"minimum": 1, "exclusiveMaximum": 2}"#, "2", ["/data/x"]),
            (#"{"minimum": 1}"#, "0.999", ["/data/x"]),
            (#"{"minItems": 1, "maxItems": 2, "items": {"type": "number"}}"#, "[]", ["/data/x"]),
            (#"{"items": {"type": "number"}}"#, #"[1, "a", 2, null]"#, ["/data/x/1", "/data/x/3"]),
            (#"{"enum": ["a", 1, null]}"#, "1.0", []),
            (#"{"enum": ["a", 1, null]}"#, #""b""#, ["/data/x"]),
            (
                #"{"additionalProperties": false, "properties": {"a": {}}}"#, #"{"a": 1, "b": 2}"#,
                ["/data/x/b"]
            ),
            (#"{"additionalProperties": {"type": "string"}}"#, #"{"a/b": 1}"#, ["/data/x/a~1b"]),
            (#"{"required": ["a"], "properties": {"a": {}}}"#, "{}", ["/data/x/a"]),
        ] as [(String, String, [String]?)])
    func checksInstances(schema: String, instance: String, paths: [String]?) throws {
        let whole = try self.schema(#"{"type": "object", "properties": {"x": \#(schema)}}"#)
        guard let paths else {
            #expect(throws: JSONError.self) { try JSON.parse(instance) }
            return
        }
        let value: JSONValue = ["x": try JSON.parse(instance)]
        #expect(whole.problems(with: value, at: JSONPointer(["data"])).map(\.path) == paths)
    }

    @Test func everyProblemIsReported() throws {
        let schema = try schema(
            """
            {"type": "object", "required": ["a", "b"], "additionalProperties": false,
             "properties": {"a": {"type": "string"}, "b": {"type": "string"}}}
            """)
        let problems = schema.problems(with: ["a": 1, "c": 2])
        #expect(Set(problems.map(\.path)) == ["/a", "/b", "/c"])
    }

    @Test(arguments: [
        (#"{"type": "object", "pattern": "a"}"#, "/pattern"),
        (##"{"type": "object", "$ref": "#/x"}"##, "/$ref"),
        (#"{"type": "text"}"#, "/type"),
        (#"{"type": "object", "required": ["a"]}"#, "/required"),
        (#"{"type": "object", "properties": {"a": {"minLength": -1}}}"#, "/properties/a/minLength"),
        (
            #"{"type": "object", "properties": {"a": {"minLength": 3, "maxLength": 2}}}"#,
            "/properties/a/maxLength"
        ),
        (#"{"type": "object", "properties": {"a": true}}"#, "/properties/a"),
        (#"{"type": "object", "properties": {"a": {"enum": []}}}"#, "/properties/a/enum"),
    ])
    func refusesWhatItDoesNotKnow(text: String, path: String) throws {
        let problems = ProblemList()
        _ = JSONSchema(try JSON.parse(text), at: JSONPointer([]), problems)
        #expect(problems.list.contains { $0.path == path }, "\(problems.list)")
    }

    @Test func refusesDeepSchemas() throws {
        var schema: JSONValue = ["type": "object"]
        for _ in 0..<PolicyLimits.schemaDepthMax + 1 { schema = ["items": schema] }
        let problems = ProblemList()
        _ = JSONSchema(schema, at: JSONPointer([]), problems)
        #expect(problems.list.contains { $0.message.contains("too deep") })
    }

    @Test func knowsWhichPointersLeadSomewhere() throws {
        let schema = try schema(
            """
            {"type": "object", "required": ["a"], "additionalProperties": false, "properties": {
              "a": {"type": "object", "required": ["b"], "properties": {"b": {"type": "string"}}},
              "list": {"type": "array", "items": {"type": "string"}}, "free": {"type": "object"}}}
            """)
        #expect(schema.declares(["a", "b"]))
        #expect(!schema.declares(["a", "c"]))
        #expect(!schema.declares(["a", "b", "c"]))
        #expect(schema.declares(["list", "0"]))
        #expect(!schema.declares(["list", "x"]))
        #expect(schema.declares(["free", "any", "thing"]))
        #expect(!schema.declares(["none"]))
        #expect(schema.guarantees(["a", "b"]))
        #expect(!schema.guarantees(["list"]))
    }
}
