import CNghttp2
import Glibc

/// The fields of one message as nghttp2 takes them: pointers into heads and buffers of others, and
/// into text that was written here. Valid until the next `reset`; nghttp2 copies everything, with
/// names in lower case (RFC 9113 §8.2.1), when the message is submitted. One for each worker.
final class HTTP2NameValues {
    /// How HPACK may treat a field.
    enum Indexing {
        /// Entered in the compression table: what comes again.
        case usual
        /// Never entered: credentials (RFC 7541 §7.1.3), and what is new in each message and would
        /// only push out the rest.
        case never
    }

    /// What a peer may send, what we add, trailers that stand in a head, and our own.
    static let pairsMax = Limits.fieldsMax + 2 * Limits.addedFieldsMax + 16
    private static let textBytesMax = Limits.headBytesMax + 4096

    let pairs: UnsafeMutablePointer<nghttp2_nv>
    private(set) var count = 0
    /// Something did not fit: the message must not be sent.
    private(set) var overflowed = false
    private let text: UnsafeMutableRawPointer
    private var textCount = 0

    init() {
        pairs = .allocate(capacity: Self.pairsMax)
        text = .allocate(byteCount: Self.textBytesMax, alignment: 16)
    }

    deinit {
        pairs.deallocate()
        text.deallocate()
    }

    func reset() {
        count = 0
        textCount = 0
        overflowed = false
    }

    func add(
        _ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer,
        _ indexing: Indexing = .usual
    ) {
        guard count < Self.pairsMax, let base = name.baseAddress else {
            overflowed = true
            return
        }
        // An empty value may have no address, which nghttp2 does not mind: it copies no byte.
        let flag = indexing == .never ? NGHTTP2_NV_FLAG_NO_INDEX : NGHTTP2_NV_FLAG_NONE
        pairs[count] = nghttp2_nv(
            name: Self.pointer(base), value: Self.pointer(value.baseAddress ?? base),
            namelen: name.count, valuelen: value.count, flags: UInt8(flag.rawValue))
        count += 1
    }

    private static func pointer(_ raw: UnsafeRawPointer) -> UnsafeMutablePointer<UInt8> {
        // nghttp2 only reads; its struct serves both ways.
        UnsafeMutablePointer(mutating: raw.assumingMemoryBound(to: UInt8.self))
    }

    func add(
        _ name: StaticString, _ value: UnsafeRawBufferPointer, _ indexing: Indexing = .usual
    ) {
        add(
            UnsafeRawBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount), value,
            indexing)
    }

    func add(_ name: StaticString, _ value: StaticString) {
        add(name, UnsafeRawBufferPointer(start: value.utf8Start, count: value.utf8CodeUnitCount))
    }

    /// A value that is written here.
    @inline(__always)
    func add(
        _ name: StaticString, _ indexing: Indexing = .usual, writing: (inout HeadWriter) -> Void
    ) {
        let room = UnsafeMutableRawBufferPointer(
            start: text + textCount, count: Self.textBytesMax - textCount)
        var writer = HeadWriter(room)
        writing(&writer)
        guard !writer.overflowed else {
            overflowed = true
            return
        }
        textCount += writer.count
        add(
            name, UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(room)[..<writer.count]),
            indexing)
    }

    /// Field lines as a `FieldBuffer` keeps them: `name: value\r\n`.
    func add(lines: UnsafeRawBufferPointer) {
        guard let base = lines.baseAddress else { return }
        var position = 0
        while position < lines.count {
            let rest = lines.count - position
            guard let colon = memchr(base + position, 0x3A, rest),
                let feed = memchr(base + position, 0x0A, rest)
            else { preconditionFailure("a line without its end in a field buffer") }
            let nameEnd = UnsafeRawPointer(colon) - base
            let valueEnd = UnsafeRawPointer(feed) - base - 1
            add(
                UnsafeRawBufferPointer(rebasing: lines[position..<nameEnd]),
                UnsafeRawBufferPointer(rebasing: lines[(nameEnd + 2)..<valueEnd]), .never)
            position = valueEnd + 2
        }
    }

    /// The fields of a head that `keeps` accepts.
    @inline(__always)
    func add(fieldsOf head: HTTPHead, keeps: (HTTPField) -> Bool) {
        for index in 0..<head.fieldCount {
            let field = head.fields[index]
            guard keeps(field) else { continue }
            add(
                head.bytes(field.name), head.bytes(field.value),
                field.id.isCredential ? .never : .usual)
        }
    }
}

extension FieldName {
    /// Who can guess at a compression table must not learn these (RFC 7541 §7.1.3).
    var isCredential: Bool {
        switch self {
        case .authorization, .proxyAuthorization, .cookie, .setCookie, .xAPIKey: true
        default: false
        }
    }
}
