import Foundation

/// What an agent says to a request, before anything goes wrong with it.
struct Answer: Sendable {
    var status = 200
    var contentType = "application/json"
    var fields: [(name: String, value: String)] = []
    /// The body in the pieces in which it is sent; more than one means a stream.
    var pieces: [[UInt8]]
    var streams = false
    var inputTokens = 0
    var outputTokens = 0

    var bytes: Int { pieces.reduce(0) { $0 + $1.count } }
}

/// A request that the agent cannot answer, in the agent's own error format.
struct Refusal: Error {
    let status: Int
    let message: String

    static func invalid(_ message: String) -> Refusal { Refusal(status: 422, message: message) }

    /// A request whose JSON cannot be read, with the path of what is missing or wrong.
    init(_ error: any Error) {
        status = 400
        guard let error = error as? DecodingError else {
            message = "the body is not JSON"
            return
        }
        switch error {
        case .keyNotFound(let key, let context):
            message = "\(Self.path(context.codingPath + [key])): missing"
        case .typeMismatch(_, let context), .valueNotFound(_, let context),
            .dataCorrupted(let context):
            message = "\(Self.path(context.codingPath)): \(context.debugDescription)"
        @unknown default: message = "the body cannot be read"
        }
    }

    init(status: Int, message: String) {
        self.status = status
        self.message = message
    }

    private static func path(_ keys: [any CodingKey]) -> String {
        keys.reduce("") { $0 + "/" + ($1.intValue.map(String.init) ?? $1.stringValue) }
    }
}

/// JSON as the samples write it: keys in a fixed order, so that equal answers are equal bytes.
enum SampleJSON {
    static func encode(_ value: some Encodable) -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        do {
            return Array(try encoder.encode(value))
        } catch {
            preconditionFailure("an answer of ours cannot be written as JSON: \(error)")
        }
    }

    static func decode<Value: Decodable>(
        _ type: Value.Type, from body: [UInt8]
    ) throws(Refusal) -> Value {
        do {
            return try JSONDecoder().decode(type, from: Data(body))
        } catch {
            throw Refusal(error)
        }
    }
}
