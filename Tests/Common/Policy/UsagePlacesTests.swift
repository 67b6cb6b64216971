import Testing
import WeirCore

@testable import WeirPolicy

@Suite struct UsagePlacesTests {
    @Test func areRead() throws {
        let documents = try PolicyFixture.documents(
            "/documents/0/spec/usage",
            [
                "input": ["header": "x-in"], "output": ["pointer": "/meta/a~1b"],
                "reasoning": ["header": "x-r", "pointer": "/r"],
            ])
        let agent = try #require(try PolicyReader.read(documents).agents["mood"])
        let usage = try #require(agent.usage)
        #expect(usage.input == .init(header: "x-in"))
        #expect(usage.output == .init(pointer: JSONPointer(["meta", "a/b"])))
        #expect(usage.reasoning?.header == "x-r" && usage.cachedInput == nil)
        #expect(agent.usagePlaces == usage)
        #expect(agent.outputLimitPlace == JSONPointer(["parameters", "max_new_tokens"]))
    }

    @Test(arguments: [
        ("{}", "output"), (#"{"input":{}}"#, "input/pointer"),
        (#"{"output":{"pointer":"a"}}"#, "output/pointer"),
        (#"{"output":{"pointer":""}}"#, "output/pointer"),
        (#"{"output":{"pointer":"/a/b/c/d/e/f/g"}}"#, "output/pointer"),
        (#"{"output":{"pointer":"/a234567890b234567890c234567890def"}}"#, "output/pointer"),
        (#"{"output":{"header":"X-Out"}}"#, "output/header"),
        (#"{"output":{"header":"x out"}}"#, "output/header"),
        (#"{"input":{"pointer":"/a"},"output":{"pointer":"/a/b"}}"#, ""),
        (#"{"input":{"pointer":"/a"},"output":{"pointer":"/a"}}"#, ""),
        (#"{"output":{"pointer":"/a"},"cost":{"pointer":"/b"}}"#, "cost"),
    ])
    func whatCannotBeReadIsAProblem(_ usage: String, _ place: String) throws {
        let documents = try PolicyFixture.documents(
            "/documents/0/spec/usage", try JSON.parse(usage))
        let path = "/documents/0/spec/usage" + (place.isEmpty ? "" : "/" + place)
        #expect(PolicyFixture.problems(documents).contains { $0.path == path })
    }

    @Test(arguments: ["usage", "outputLimit"])
    func protocolsWithAFormHaveNone(_ field: String) throws {
        let value: JSONValue = field == "usage" ? ["output": ["pointer": "/a"]] : "/a"
        let documents = try PolicyFixture.documents("/documents/1/spec/" + field, value)
        #expect(
            PolicyFixture.problems(documents).map(\.path) == ["/documents/1/spec/" + field])
    }
}
