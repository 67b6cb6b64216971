import Foundation
import Testing
import WeirCore

/// One conversation that no well-behaved client has: what is said, and what must come back.
struct Conversation: Sendable, CustomTestStringConvertible {
    let name: String
    let says: [UInt8]
    /// What is said is the body of a good head that announces chunks.
    var isChunkedBody = false
    /// The statuses of all answers, in order; an empty list is a close without a word.
    let answers: [Int]
    /// The reason that the last answer gives, as a problem or as OpenAI's error object.
    let reason: String?

    init(_ name: String, _ says: [UInt8], _ answers: [Int], _ reason: String? = nil) {
        self.name = name
        self.says = says
        self.answers = answers
        self.reason = reason
    }

    init(_ name: String, _ says: String, _ answer: Int, _ reason: String? = nil) {
        self.init(name, Array(says.utf8), [answer], reason)
    }

    var testDescription: String { name }
}

/// Where conversations are had: a listener, and a request that it would take.
struct Door: Sendable {
    let name: String
    let port: UInt16
    /// Whole and good: it is sent behind what is hostile, and must not be taken for a request then.
    let good: String
    /// The head of a good request whose body comes in chunks.
    let chunkedHead: String
}

extension Conversation {
    /// What came back, taken apart.
    struct Heard: Equatable {
        var statuses: [Int] = []
        var lastReason: String?
        var isClosed = false
    }

    /// Has the conversation on a connection of its own. Behind `says` follows a good request.
    func hold(at door: Door) throws -> Heard {
        let connection = try RawConnection(port: door.port)
        let head = isChunkedBody ? Array(door.chunkedHead.utf8) : []
        let bytes = head + says + Array(door.good.utf8)
        // The other side may close in the middle of what we say.
        try? connection.send(bytes)
        let (received, end) = connection.readToEnd(quietMilliseconds: 5_000)
        var heard = Self.read(received)
        heard.isClosed = end != .timedOut
        return heard
    }

    /// Takes responses apart that have a `Content-Length`, as all refusals have.
    static func read(_ bytes: [UInt8]) -> Heard {
        var heard = Heard()
        var rest = bytes[...]
        while let head = rest.firstRange(of: [13, 10, 13, 10]) {
            let lines = String(decoding: rest[..<head.lowerBound], as: UTF8.self)
                .components(separatedBy: "\r\n")
            heard.statuses.append(
                lines[0].split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0)
            let length = lines.first { $0.lowercased().hasPrefix("content-length:") }
                .flatMap { Int($0.dropFirst(15).trimmingCharacters(in: .whitespaces)) }
            let body = rest[head.upperBound...].prefix(length ?? .max)
            let document = try? JSON.parse(Array(body))
            heard.lastReason =
                document?["reason"]?.string ?? document?["error"]?["code"]?.string
            rest = rest[body.endIndex...]
        }
        return heard
    }
}
