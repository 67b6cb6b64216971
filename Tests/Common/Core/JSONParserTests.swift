import Testing
import WeirCore

@Suite struct JSONParserTests {
    @Test(arguments: [
        "null", "true", "false", "0", "-0", "1.5", "1e5", "-1.25E-3", #""""#, #""aä€😀""#, "[]",
        "{}", #"[1,[2,{"a":null}]]"#, #"{"b":1,"a":[true,false]}"#, "12345678901234567890",
    ])
    func whatIsCompactStaysAsItIs(text: String) throws {
        #expect(try JSON.parse(text).text == text)
    }

    @Test(arguments: [
        (#""\u0041\n\t\\\/\b\f\r""#, "A\n\t\\/\u{8}\u{C}\r"), (#""\ud83d\ude00""#, "😀"),
        (#""\u00e9x""#, "éx"), (#""\u0000""#, "\0"),
    ])
    func escapes(text: String, expected: String) throws {
        #expect(try JSON.parse(text) == .string(expected))
    }

    @Test(arguments: [
        "", " ", "nul", "nulll", "+1", "01", "1.", ".5", "1e", "1e+", "--1", "0x1", "NaN",
        "Infinity", "1e999", "'a'", #""a"#, #""\x""#, #""\u12"#, #""\u12g4""#, "[", "[1", "[1,]",
        "[,1]", "[1 2]", "{", "{}}", #"{"a"}"#, #"{"a":}"#, #"{"a":1,}"#, "{a:1}", #"{"a" 1}"#,
        "[1]x", "\u{FEFF}1", "\"a\nb\"", "\"\u{1}\"", "// c\n1", "tru", "-", "[]]",
        #""\ud83d""#, #""\ud83dx""#, #""\ud83d\u0041""#, #""\ude00""#,
    ])
    func refusesWhatIsNotJSON(text: String) {
        #expect(throws: JSONError.self) { try JSON.parse(text) }
    }

    @Test(
        arguments: [
            [0x22, 0xFF, 0x22], [0x22, 0xC0, 0x80, 0x22], [0x22, 0xED, 0xA0, 0x80, 0x22],
            [0x22, 0xE2, 0x82, 0x22], [0x22, 0x5C, 0x6E, 0xFF, 0x22],
        ] as [[UInt8]])
    func refusesInvalidUTF8(bytes: [UInt8]) {
        let error = #expect(throws: JSONError.self) { try JSON.parse(bytes) }
        #expect(error?.kind == .invalidUTF8)
    }

    /// Two spellings of one key are one key.
    @Test(arguments: [#"{"a":1,"a":2}"#, #"{"a":1,"\u0061":2}"#, #"{"b":{"x":1,"x":1}}"#])
    func refusesDuplicateKeys(text: String) {
        let error = #expect(throws: JSONError.self) { try JSON.parse(text) }
        #expect(error?.kind == .duplicateKey)
    }

    @Test func duplicateKeysAreFoundInLargeObjectsToo() {
        let members = (0..<100).map { "\"k\($0)\":\($0)" }.joined(separator: ",")
        #expect(throws: Never.self) { try JSON.parse("{\(members)}") }
        #expect(throws: JSONError.self) { try JSON.parse("{\(members),\"k50\":1}") }
    }

    @Test func depthAndCountHaveLimits() {
        let deep = String(repeating: "[", count: 65) + String(repeating: "]", count: 65)
        #expect(throws: JSONError.self) { try JSON.parse(deep) }
        #expect(throws: Never.self) { try JSON.parse(String(deep.dropFirst().dropLast())) }
        let endless = String(repeating: "[", count: 1_000_000)
        #expect(throws: JSONError.self) { try JSON.parse(endless) }
        let error = #expect(throws: JSONError.self) {
            try JSON.parse(Array("[1,2,3]".utf8), valuesMax: 3)
        }
        #expect(error?.kind == .tooManyValues)
    }

    @Test func errorsNameTheirPlace() {
        let error = #expect(throws: JSONError.self) { try JSON.parse(#"{"a": nope}"#) }
        #expect(error?.offset == 6)
    }
}

@Suite struct JSONWriterTests {
    @Test func canonicalBytesDoNotDependOnOrder() throws {
        let left = try JSON.parse(#"{"b": 1, "a": {"d": [1, 2], "c": "x"}}"#)
        let right = try JSON.parse(#"{"a": {"c": "x", "d": [1, 2]}, "b": 1}"#)
        #expect(left == right)
        #expect(left.canonicalBytes == right.canonicalBytes)
        #expect(left.text != right.text)
    }

    @Test func everyCharacterSurvives() throws {
        let scalars = (0..<0x300).compactMap { Unicode.Scalar($0 as UInt32) } + ["\u{2028}", "😀"]
        let text = String(String.UnicodeScalarView(scalars))
        #expect(try JSON.parse(JSONValue.string(text).bytes) == .string(text))
    }

    @Test func prettyTextIsTheSameDocument() throws {
        let value = try JSON.parse(#"{"a":[1,{"b":[]},{}],"c":"x"}"#)
        #expect(try JSON.parse(value.prettyText) == value)
        #expect(value.prettyText.contains("\n  \"a\""))
    }

    @Test func objectsKeepTheirOrderThroughChanges() {
        var object = JSONObject()
        for index in 0..<40 { object["k\(index)"] = .number(JSONNumber(index)) }
        object["k3"] = nil
        object["k5"] = "five"
        #expect(object.count == 39)
        #expect(object["k3"] == nil)
        #expect(object["k5"] == "five")
        #expect(object["k39"] == 39)
        #expect(object.keys.prefix(4) == ["k0", "k1", "k2", "k4"])
        let inserted = object.insert("k0", 1)
        #expect(!inserted)
    }

    @Test func numbersOfDoubles() {
        #expect(JSONNumber(1.5)?.literal == "1.5")
        #expect(JSONNumber(2.0)?.literal == "2")
        #expect(JSONNumber(Double.nan) == nil)
        #expect(JSONNumber(Double.infinity) == nil)
        #expect(JSONNumber(1e300).flatMap { Double($0.literal) } == 1e300)
    }
}
