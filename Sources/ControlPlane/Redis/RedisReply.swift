/// What Redis answers (RESP2).
package enum RedisReply: Hashable, Sendable {
    case null
    case integer(Int64)
    /// A simple string ("OK") or a bulk string.
    case string([UInt8])
    /// Only inside arrays: an error as the whole answer is thrown.
    case error(String)
    case array([RedisReply])

    package var integer: Int64? {
        switch self {
        case .integer(let value): value
        case .string(let bytes): Int64(String(decoding: bytes, as: UTF8.self))
        case .null, .error, .array: nil
        }
    }

    package var text: String? {
        switch self {
        case .string(let bytes): String(decoding: bytes, as: UTF8.self)
        case .integer(let value): String(value)
        case .null, .error, .array: nil
        }
    }

    package var bytes: [UInt8]? { if case .string(let bytes) = self { bytes } else { nil } }
    package var array: [RedisReply]? { if case .array(let array) = self { array } else { nil } }
    package var isNull: Bool { self == .null }

    /// The texts of a flat array; `nil` when this is none.
    package var texts: [String]? {
        guard let array else { return nil }
        let texts = array.compactMap(\.text)
        return texts.count == array.count ? texts : nil
    }

    /// The fields of HGETALL; empty when the hash does not exist.
    package var fields: [String: String] {
        guard let texts, texts.count.isMultiple(of: 2) else { return [:] }
        var fields: [String: String] = [:]
        for index in stride(from: 0, to: texts.count, by: 2) {
            fields[texts[index]] = texts[index + 1]
        }
        return fields
    }
}

/// The wire form of commands (RESP2 arrays of bulk strings).
enum RedisWire {
    static func command(_ arguments: [String]) -> [UInt8] {
        var output: [UInt8] = []
        output.reserveCapacity(arguments.reduce(16) { $0 + $1.utf8.count + 16 })
        output.append(UInt8(ascii: "*"))
        append(arguments.count, to: &output)
        for argument in arguments {
            output.append(UInt8(ascii: "$"))
            append(argument.utf8.count, to: &output)
            output.append(contentsOf: argument.utf8)
            output.append(contentsOf: [13, 10])
        }
        return output
    }

    private static func append(_ count: Int, to output: inout [UInt8]) {
        output.append(contentsOf: String(count).utf8)
        output.append(contentsOf: [13, 10])
    }
}
