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
            (#"{"const": {"a": [1]}}"#, #"{"a": [1.0]}"#, []),
            (#"{"const": 1}"#, #""1""#, ["/data/x"]),
            (#"{"enum": [{"a": 1, "b": 2}]}"#, #"{"b": 2, "a": 1}"#, []),
            (#"{"enum": [0]}"#, "false", ["/data/x"]),
            (#"{"uniqueItems": true}"#, "[1, 2, 1.0, 2]", ["/data/x/2", "/data/x/3"]),
            (#"{"uniqueItems": true}"#, #"[{"a": 1}, {"a": 2}, "1", 1, true, null]"#, []),
            (#"{"uniqueItems": true}"#, #"[{"a": 1, "b": 2}, {"b": 2, "a": 1}]"#, ["/data/x/1"]),
            (#"{"uniqueItems": false}"#, "[1, 1]", []),
            (#"{"minProperties": 1, "maxProperties": 2}"#, "{}", ["/data/x"]),
            (#"{"maxProperties": 1}"#, #"{"a": 1, "b": 2}"#, ["/data/x"]),
            (#"{"maxProperties": 1}"#, "[1, 2, 3]", []),
            (#"{"exclusiveMinimum": 0}"#, "0", ["/data/x"]),
            (#"{"exclusiveMinimum": 0}"#, "1e-9", []),
            (#"{"maximum": 9007199254740991}"#, "9007199254740992", ["/data/x"]),
            (#"{"type": "number"}"#, "1", []), (#"{"type": "boolean"}"#, "1", ["/data/x"]),
            (#"{"type": "null"}"#, "0", ["/data/x"]), (#"{"type": "integer"}"#, "1e2", []),
            (#"{"type": "integer"}"#, "12345678901234567890", []),
            (#"{"anyOf": [{"type": "string"}, {"type": "null"}]}"#, "null", []),
            (#"{"anyOf": [{"type": "string"}, {"minimum": 2}]}"#, "1", ["/data/x"]),
            (
                #"{"properties": {"a": {}, "b": {}, "c": {}}, "anyOf": "#
                    + #"[{"required": ["a", "b"]}, {"required": ["c"]}]}"#, #"{"a": 1}"#,
                ["/data/x/b"]
            ),
            (
                #"{"properties": {"a": {}, "b": {}, "c": {}}, "anyOf": "#
                    + #"[{"required": ["a", "b"]}, {"required": ["c"]}]}"#, #"{"c": 1}"#, []
            ),
            (#"{"items": {"items": {"type": "null"}}}"#, "[[null], [null, 1]]", ["/data/x/1/1"]),
            (#"{"description": "of no effect", "default": 1}"#, #""a""#, []),
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

    @Test(
        arguments: [
            ("date", "2026-11-22", true), ("date", "2024-02-29", true),
            ("date", "2026-02-29", false), ("date", "1900-02-29", false),
            ("date", "2000-02-29", true), ("date", "2026-13-01", false),
            ("date", "2026-00-01", false), ("date", "2026-04-31", false),
            ("date", "2026-1-1", false), ("date", "2026-11-22T00:00:00Z", false),
            ("date", "２０２６-11-22", false), ("date", "", false),
            ("date-time", "2026-11-22T09:30:00Z", true),
            ("date-time", "2026-11-22t09:30:00.123456z", true),
            ("date-time", "2026-11-22T09:30:00+05:30", true),
            ("date-time", "2026-12-31T23:59:60Z", true),
            ("date-time", "2026-11-22T24:00:00Z", false),
            ("date-time", "2026-11-22T09:60:00Z", false),
            ("date-time", "2026-11-22T09:30:00.Z", false),
            ("date-time", "2026-11-22T09:30:00", false),
            ("date-time", "2026-11-22 09:30:00Z", false),
            ("date-time", "2026-11-22T09:30Z", false),
            ("date-time", "2026-11-22T09:30:00+24:00", false),
            ("date-time", "2026-11-22T09:30:00Zx", false), ("date-time", "2026-11-22", false),
        ])
    func formatsAreAsserted(format: String, text: String, isValid: Bool) throws {
        let schema = try schema(
            #"{"type": "object", "properties": {"x": {"format": "\#(format)"}}}"#)
        #expect(schema.problems(with: ["x": .string(text)]).isEmpty == isValid)
        // A format says nothing of what is no string.
        #expect(schema.problems(with: ["x": 1]).isEmpty)
    }

    @Test func theNearestAlternativeIsExplained() throws {
        let schema = try schema(
            """
            {"type": "object", "properties": {"a": {}, "b": {}, "c": {}},
             "anyOf": [{"required": ["a", "b"]}, {"required": ["c"]}]}
            """)
        let problems = schema.problems(with: [:])
        #expect(problems.map(\.path) == ["/c"])
        #expect(problems.first?.message == "is missing (the nearest of 2 alternatives)")
    }

    /// Hashes cover whole values: elements that differ only deep inside do not collide.
    @Test func manyUniqueElementsAreCheckedQuickly() throws {
        let schema = try schema(
            #"{"type": "object", "properties": {"x": {"uniqueItems": true}}}"#)
        let elements = (0..<20_000).map { JSONValue.object(["a": .number(JSONNumber($0))]) }
        let start = ContinuousClock.now
        #expect(schema.problems(with: ["x": .array(elements)]).isEmpty)
        #expect(ContinuousClock.now - start < .seconds(10))
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
        (
            #"{"type": "object", "properties": {"a": {"enum": [1], "const": 1}}}"#,
            "/properties/a/const"
        ),
        (#"{"type": "object", "properties": {"a": {"format": "email"}}}"#, "/properties/a/format"),
        (#"{"type": "object", "properties": {"a": {"pattern": "^a"}}}"#, "/properties/a/pattern"),
        (
            #"{"type": "object", "properties": {"a": {"multipleOf": 2}}}"#,
            "/properties/a/multipleOf"
        ),
        (#"{"type": "object", "oneOf": [{}]}"#, "/oneOf"),
        (#"{"type": "object", "not": {}}"#, "/not"),
        (#"{"type": "object", "anyOf": []}"#, "/anyOf"),
        (#"{"type": "object", "anyOf": [{"required": ["a"]}]}"#, "/anyOf/0/required"),
        (
            #"{"type": "object", "properties": {"a": {"uniqueItems": 1}}}"#,
            "/properties/a/uniqueItems"
        ),
        (#"{"type": "array"}"#, "/type"),
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
        let alternatives = try self.schema(
            """
            {"type": "object", "additionalProperties": false, "properties": {"a": {}},
             "anyOf": [{"required": ["a"]}, {"properties": {"b": {"type": "string"}}}]}
            """)
        #expect(alternatives.declares(["a"]))
        #expect(alternatives.declares(["b"]))
        #expect(!alternatives.declares(["c"]))
    }
}
