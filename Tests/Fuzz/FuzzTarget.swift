/// A property that all inputs have. `scripts/fuzz` looks for an input that lacks it, guided by
/// coverage; the inputs in `Corpus/NAME` are checked with the unit tests.
struct FuzzTarget: Sendable, CustomStringConvertible {
    /// Also the name of its folder in `Corpus`.
    let name: String
    /// Longer inputs find nothing that shorter ones do not, unless the limits are looked for.
    var inputBytesMax = 4_096
    let check: @Sendable (UnsafeRawBufferPointer) throws(PropertyFailure) -> Void

    var description: String { name }

    static let all: [FuzzTarget] = [
        FuzzTarget(name: "request-head") { bytes throws(PropertyFailure) in
            try HeadTarget(isRequest: true).check(bytes)
        },
        FuzzTarget(name: "response-head") { bytes throws(PropertyFailure) in
            try HeadTarget(isRequest: false).check(bytes)
        },
        FuzzTarget(name: "chunks") { bytes throws(PropertyFailure) in
            try ChunksTarget.check(bytes)
        },
        FuzzTarget(name: "http2-client") { bytes throws(PropertyFailure) in
            try HTTP2ClientTarget.check(bytes)
        },
        FuzzTarget(name: "http2-server") { bytes throws(PropertyFailure) in
            try HTTP2ServerTarget.check(bytes)
        },
        FuzzTarget(name: "json") { bytes throws(PropertyFailure) in try JSONTarget.check(bytes) },
        FuzzTarget(name: "sse") { bytes throws(PropertyFailure) in try SSETarget.check(bytes) },
        FuzzTarget(name: "journal") { bytes throws(PropertyFailure) in
            try JournalTarget.check(bytes)
        },
        FuzzTarget(name: "policy", inputBytesMax: 16_384) { bytes throws(PropertyFailure) in
            try PolicyTarget.check(bytes)
        },
        FuzzTarget(name: "mesh") { bytes throws(PropertyFailure) in try MeshTarget.check(bytes) },
    ]
}

/// Which property an input lacks.
struct PropertyFailure: Error, Equatable, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }
}

func require(_ holds: Bool, _ property: @autoclosure () -> String) throws(PropertyFailure) {
    if !holds { throw PropertyFailure(property()) }
}

/// The ways in which one input is cut into the pieces that a socket might deliver.
enum Pieces {
    /// Where each piece ends; the last is the input's end. Byte by byte where that is affordable.
    static func cuts(_ bytes: UnsafeRawBufferPointer) -> [[Int]] {
        let count = bytes.count
        // Any number that depends on the input does: each input is always cut in the same way.
        let place = bytes.reduce(count) { ($0 &* 31 &+ Int($1)) & 0xFFFF_FFFF }
        var ways = [[count], [count > 0 ? place % count : 0, count]]
        let step = count <= 512 ? 1 : count / 64
        if count > 1 { ways.append(Array(stride(from: step, to: count, by: step)) + [count]) }
        return ways
    }
}

extension UnsafeRawBufferPointer {
    subscript(from start: Int, to end: Int) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: self[start..<end])
    }

    /// A copy of a piece with nothing behind it, so that a sanitizer sees each byte read too far.
    func withCopy<Result>(
        from start: Int, to end: Int, _ body: (UnsafeRawBufferPointer) -> Result
    ) -> Result {
        let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: end - start, alignment: 1)
        defer { copy.deallocate() }
        copy.copyMemory(from: self[from: start, to: end])
        return body(UnsafeRawBufferPointer(copy))
    }
}
