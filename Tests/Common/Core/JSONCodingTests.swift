import Testing
import WeirCore

private struct Message: Codable, Equatable {
    enum Kind: String, Codable { case small, large }
    struct Part: Codable, Equatable {
        var name: String
        var amount: NanoUSD
        var note: String?
    }

    var kind: Kind
    var count: Int
    var share: Double
    var flag: Bool
    var parts: [Part]
    var byName: [String: UInt8]
    var raw: JSONValue
}

@Suite struct JSONCodingTests {
    private let message = Message(
        kind: .large, count: -3, share: 0.25, flag: true,
        parts: [.init(name: "a", amount: NanoUSD(5), note: nil)], byName: ["x": 255],
        raw: ["any": [1, .null]])

    @Test func messagesSurvive() throws {
        let bytes = try JSON.encode(message)
        #expect(try JSON.decode(Message.self, from: bytes) == message)
    }

    @Test(arguments: [
        ("/kind", #""huge""#, "/kind"), ("/count", "1.5", "/count"), ("/count", "1e30", "/count"),
        ("/flag", "1", "/flag"), ("/parts/0/amount", "5", "/parts/0/amount"),
        ("/parts", "{}", "/parts"), ("/byName/x", "256", "/byName/x"), ("/share", "null", "/share"),
    ])
    func wrongPlacesAreNamed(place: String, text: String, path: String) throws {
        let root = try JSON.encodeValue(message)
        let tokens = try #require(JSONPointer(place)).tokens
        let changed = replace(root, tokens[...], try JSON.parse(text))
        let error = #expect(throws: (any Error).self) {
            try JSON.decode(Message.self, from: changed)
        }
        #expect(error.map { JSON.problem(from: $0).path } == path)
    }

    @Test func aMissingFieldIsNamed() throws {
        let error = #expect(throws: DecodingError.self) {
            try JSON.decode(Message.self, from: Array("{}".utf8))
        }
        #expect(error.map { JSON.problem(from: $0).message } == "kind is missing")
    }

    private func replace(
        _ root: JSONValue, _ tokens: ArraySlice<String>, _ value: JSONValue
    ) -> JSONValue {
        guard let token = tokens.first else { return value }
        switch root {
        case .object(var object):
            object[token] = replace(object[token] ?? .null, tokens.dropFirst(), value)
            return .object(object)
        case .array(var array):
            guard let index = Int(token), array.indices.contains(index) else { return root }
            array[index] = replace(array[index], tokens.dropFirst(), value)
            return .array(array)
        case .null, .bool, .number, .string: return value
        }
    }
}
