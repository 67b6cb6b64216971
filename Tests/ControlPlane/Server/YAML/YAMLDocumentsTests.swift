import Testing
import WeirCore

@testable import WeirYAML

@Suite("YAML is read as JSON would be")
struct YAMLDocumentsTests {
    @Test func scalarsAreWhatJSONSaysAndNothingElse() throws {
        let text = """
            {null: ~, empty: , yes: yes, time: 12:30, version: 1.10, hex: 0x10, plus: +1, big:
            123456789012345678901234567890, flag: true, quoted: "true", date: 2026-11-22}
            """
        let document = try #require(try YAMLDocuments.read(text).first)
        #expect(document["null"] == .null)
        #expect(document["empty"] == .null)
        #expect(document["yes"] == "yes")
        #expect(document["time"] == "12:30")
        #expect(document["version"]?.number?.literal == "1.10")
        #expect(document["hex"] == "0x10")
        #expect(document["plus"] == "+1")
        #expect(document["big"]?.number?.literal == "123456789012345678901234567890")
        #expect(document["flag"] == true)
        #expect(document["quoted"] == "true")
        #expect(document["date"] == "2026-11-22")
    }

    @Test func emptyDocumentsAreSkipped() throws {
        #expect(try YAMLDocuments.read("---\n# only words\n---\na: 1\n---\n").count == 1)
        #expect(try YAMLDocuments.read("").isEmpty)
    }

    @Test(arguments: [
        ("a: [1", "line 2"), ("a: 1\na: 2", "duplicate key a"), ("a: *b", "undefined alias"),
        ("<<: {a: 1}", "merge keys"), ("? [a]\n: 1", "a key must be a string"),
    ])
    func whatIsWrongIsSaid(text: String, words: String) throws {
        let problems = try #require(throws: Problems.self) { try YAMLDocuments.read(text) }
        #expect(problems.list.first?.message.contains(words) == true, "\(problems)")
    }

    @Test func aBombOfAliasesAndDeepNestingEndInProblems() {
        var bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
        for level in 1..<9 {
            let alias = Array(repeating: "*a\(level - 1)", count: 10).joined(separator: ", ")
            bomb += "a\(level): &a\(level) [\(alias)]\n"
        }
        #expect(throws: Problems.self) { try YAMLDocuments.read(bomb) }
        #expect(throws: Problems.self) {
            try YAMLDocuments.read(String(repeating: "[", count: 100_000))
        }
    }

    @Test func whatIsWrittenIsReadBack() throws {
        let value: JSONValue = [
            "strings": ["yes", "12:30", "1", "", "null", "a\nb", "– ü", "~", "#x", "a: b", "-"],
            "numbers": [1, -2, .number(try #require(JSONNumber(0.5)))], "none": .null,
            "empty": ["list": [], "object": [:]], "flag": false,
        ]
        #expect(try YAMLDocuments.read(try YAMLDocuments.write(value)) == [value])
    }
}
