@testable import SidecarCore

/// Heads of requests and responses:
///
/// 1. Whatever pieces a head comes in, the connection's way of reading it (parse once, then only
///    scan until the end is there) ends as parsing the whole does.
/// 2. What is accepted is what `HeadRules` and RFC 9112 say, checked by other code than the parser.
/// 3. What is accepted, written again in the plainest form, is accepted and means the same.
struct HeadTarget {
    let isRequest: Bool

    /// A head's meaning, in values that can be compared.
    private struct Meaning: Equatable {
        var method: [UInt8], target: [UInt8], host: [UInt8], status: Int, minorVersion: UInt8
        var contentLength: Int64, flags: UInt16
        var fields: [[[UInt8]]]
    }

    private enum Outcome: Equatable {
        case complete(Int, Meaning)
        case failed(HeadError)
        case waits
    }

    func check(_ bytes: UnsafeRawBufferPointer) throws(PropertyFailure) {
        let whole = bytes.withCopy(from: 0, to: bytes.count) { read($0, cuts: [$0.count]) }
        for cuts in Pieces.cuts(bytes).dropFirst() {
            let split = read(bytes, cuts: cuts)
            switch (whole, split) {
            // The scan may wait for an end that is not there before it lets the parser judge.
            case (.failed, .failed), (.failed, .waits): break
            default: try require(whole == split, "cut at \(cuts.prefix(4)): \(split), not \(whole)")
            }
        }
        guard case .complete(let count, let meaning) = whole else { return }
        try checkBytes(bytes[from: 0, to: count])
        try checkMeaning(meaning)
        let again = Self.written(meaning, isRequest).withUnsafeBytes { read($0, cuts: [$0.count]) }
        guard case .complete(_, let second) = again else {
            throw PropertyFailure("written again it is \(again)")
        }
        try require(second == meaning, "written again it means something else")
    }

    // MARK: Reading as a connection does

    private func read(_ bytes: UnsafeRawBufferPointer, cuts: [Int]) -> Outcome {
        var scan: HeadScan?
        for cut in cuts where cut > 0 {
            let outcome = bytes.withCopy(from: 0, to: cut) { piece -> Outcome in
                if scan != nil, scan?.hasEnd(piece) != true { return .waits }
                return parse(piece)
            }
            guard case .waits = outcome else { return outcome }
            if scan == nil {
                var first = HeadScan()
                _ = first.hasEnd(bytes[from: 0, to: cut])
                scan = first
            }
        }
        return .waits
    }

    private func parse(_ bytes: UnsafeRawBufferPointer) -> Outcome {
        withUnsafeTemporaryAllocation(of: HTTPField.self, capacity: Limits.fieldsMax) { room in
            guard let fields = room.baseAddress else { return .waits }
            var head = HTTPHead(base: UnsafeRawPointer(fields), fields: fields)
            let result =
                isRequest
                ? HeadParser.parseRequest(bytes, fields: fields, into: &head)
                : HeadParser.parseResponse(bytes, fields: fields, into: &head)
            switch result {
            case .needsMore: return .waits
            case .failed(let error): return .failed(error)
            case .complete(let count): return .complete(count, Self.meaning(head))
            }
        }
    }

    private static func meaning(_ head: HTTPHead) -> Meaning {
        Meaning(
            method: Array(head.bytes(head.methodRange)), target: Array(head.bytes(head.target)),
            host: head.bytes(head.host).map(ASCII.lowered), status: head.status,
            minorVersion: head.minorVersion, contentLength: head.contentLength,
            flags: head.flags.rawValue,
            fields: (0..<head.fieldCount).map {
                let field = head.field($0)
                return [Array(head.bytes(field.name)), Array(head.bytes(field.value))]
            })
    }

    // MARK: What no accepted head may have

    /// Every line ends in CRLF, and neither byte of it stands anywhere else (RFC 9112 §2.2).
    private func checkBytes(_ head: UnsafeRawBufferPointer) throws(PropertyFailure) {
        let end = head.count - 4
        try require(end >= 0, "no head is this short")
        for index in 0..<head.count {
            switch head[index] {
            case 0x0A:
                try require(index > 0 && head[index - 1] == 0x0D, "a bare line feed")
                try require(
                    index == head.count - 1 || index < 3 || head[index - 2] != 0x0A,
                    "an empty line in the middle")
            case 0x0D:
                try require(
                    index + 1 < head.count && head[index + 1] == 0x0A, "a bare carriage return")
            case 0x09: break
            case 0..<0x20, 0x7F: throw PropertyFailure("a control character")
            default: break
            }
        }
        try require(head[end...].elementsEqual([13, 10, 13, 10]), "no empty line at the end")
    }

    private func checkMeaning(_ meaning: Meaning) throws(PropertyFailure) {
        func values(_ name: String) -> [String] {
            meaning.fields.filter { String(decoding: $0[0], as: UTF8.self).lowercased() == name }
                .map { String(decoding: $0[1], as: UTF8.self) }
        }
        for field in meaning.fields {
            try require(!field[0].isEmpty && field[0].allSatisfy(Self.isToken), "no field name")
            try require(field[1].first != 0x20 && field[1].last != 0x20, "space around a value")
        }
        let lengths = values("content-length")
        let codings = values("transfer-encoding")
        try require(lengths.count + codings.count <= 1, "two ways to tell the length")
        try require(codings.allSatisfy { $0.lowercased() == "chunked" }, "an unknown coding")
        try require(
            meaning.contentLength == lengths.first.flatMap { Int64($0) } ?? -1, "another length")
        let isChunked = meaning.flags & HTTPHead.Flags.chunked.rawValue != 0
        try require(isChunked == !codings.isEmpty, "chunked without a coding")
        try require(!isChunked || meaning.minorVersion == 1, "a coding in HTTP/1.0")
        if isRequest {
            let hosts = values("host")
            try require(hosts.count <= 1, "two hosts")
            try require(meaning.minorVersion == 0 || hosts.count == 1, "no host")
            try require(meaning.target.allSatisfy { $0 > 0x20 && $0 < 0x7F }, "a wrong target")
            try require(meaning.method.allSatisfy(Self.isToken), "a method that is no token")
        } else {
            try require((100...599).contains(meaning.status), "no status")
        }
    }

    private static func isToken(_ byte: UInt8) -> Bool {
        switch byte {
        case 48...57, 65...90, 97...122: true
        default: "!#$%&'*+-.^_`|~".utf8.contains(byte)
        }
    }

    private static func written(_ meaning: Meaning, _ isRequest: Bool) -> [UInt8] {
        var bytes: [UInt8] = []
        if isRequest {
            bytes += meaning.method + [0x20]
            // An absolute target without a path; its authority is in the `Host` field, too.
            let isBare = meaning.target.isEmpty
            bytes += isBare ? Array("http://".utf8) + meaning.host : meaning.target
            bytes += Array(" HTTP/1.\(meaning.minorVersion)\r\n".utf8)
        } else {
            bytes += Array("HTTP/1.\(meaning.minorVersion) \(meaning.status) \r\n".utf8)
        }
        for field in meaning.fields { bytes += field[0] + [0x3A, 0x20] + field[1] + [13, 10] }
        return bytes + [13, 10]
    }
}
