import CNghttp2
import Glibc

@testable import SidecarCore

/// The server's end of an HTTP/2 connection, frame by frame: it can break every rule. Only HPACK is
/// nghttp2's.
final class HTTP2FramePeer {
    struct Frame {
        enum Kind: UInt8 {
            case data, headers, priority, reset, settings, pushPromise, ping, goAway, windowUpdate
            case continuation
        }

        var kind: UInt8
        var flags: UInt8 = 0
        var stream: Int32 = 0
        var payload: [UInt8] = []

        init(
            _ kind: Kind, flags: UInt8 = 0, stream: Int32 = 0, payload: [UInt8] = []
        ) {
            self.init(kind: kind.rawValue, flags: flags, stream: stream, payload: payload)
        }

        init(kind: UInt8, flags: UInt8, stream: Int32, payload: [UInt8]) {
            self.kind = kind
            self.flags = flags
            self.stream = stream
            self.payload = payload
        }

        func `is`(_ other: Kind) -> Bool { kind == other.rawValue }
        var endsStream: Bool { flags & 1 != 0 && (`is`(.data) || `is`(.headers)) }

        var bytes: [UInt8] {
            let count = payload.count
            return [UInt8(count >> 16 & 255), UInt8(count >> 8 & 255), UInt8(count & 255)]
                + [kind, flags] + Self.word(UInt32(bitPattern: stream)) + payload
        }

        static func word(_ value: UInt32) -> [UInt8] {
            (0..<4).map { UInt8(truncatingIfNeeded: value >> (24 - 8 * UInt32($0))) }
        }
    }

    struct Request {
        var stream: Int32
        var fields: [(String, String)] = []
        var body: [UInt8] = []
        var trailers: [(String, String)] = []
        var isWhole = false
        subscript(name: String) -> String? { fields.first { $0.0 == name }?.1 }
        var text: String { String(decoding: body, as: UTF8.self) }
    }

    static let maxConcurrentStreams: UInt16 = 3
    static let initialWindowSize: UInt16 = 4

    let socket: TestSocket
    private var inflater: OpaquePointer?
    private var open: [Int32: Request] = [:]
    /// Frames other than HEADERS and DATA, as they came.
    private(set) var others: [Frame] = []
    /// Credit for what was read is given back at once.
    var opensWindows = true

    /// Reads the preface and sends SETTINGS; `nil` when the client did not begin as it must.
    init?(_ socket: TestSocket, settings: [(UInt16, UInt32)] = []) {
        self.socket = socket
        let preface = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8)
        guard socket.read(preface.count) == preface else { return nil }
        nghttp2_hd_inflate_new(&inflater)
        send(settings: settings)
    }

    deinit { nghttp2_hd_inflate_del(inflater) }

    // MARK: Sending

    @discardableResult
    func send(_ frames: Frame...) -> Bool { socket.send(frames.flatMap(\.bytes)) }

    func send(settings: [(UInt16, UInt32)]) {
        let payload = settings.flatMap {
            [UInt8($0.0 >> 8), UInt8($0.0 & 255)] + Frame.word($0.1)
        }
        send(Frame(.settings, payload: payload))
    }

    static func headers(_ stream: Int32, _ fields: [(String, String)], ends: Bool = false) -> Frame
    {
        Frame(.headers, flags: ends ? 5 : 4, stream: stream, payload: block(fields))
    }

    /// Literals without indexing (RFC 7541 §6.2.2).
    static func block(_ fields: [(String, String)]) -> [UInt8] {
        fields.flatMap { [0] + literal($0.0) + literal($0.1) }
    }

    private static func literal(_ text: String) -> [UInt8] {
        let bytes = Array(text.utf8)
        guard bytes.count >= 127 else { return [UInt8(bytes.count)] + bytes }
        var length: [UInt8] = [127]
        var rest = bytes.count - 127
        while rest >= 128 {
            length.append(UInt8(rest & 127 | 128))
            rest >>= 7
        }
        return length + [UInt8(rest)] + bytes
    }

    static func data(_ stream: Int32, _ text: String, ends: Bool = false) -> Frame {
        Frame(.data, flags: ends ? 1 : 0, stream: stream, payload: Array(text.utf8))
    }

    func answer(_ stream: Int32, _ text: String) {
        send(
            Self.headers(stream, [(":status", "200"), ("x-stream", "\(stream)")]),
            Self.data(stream, text, ends: true))
    }

    func goAway(last: Int32, code: UInt32 = 0) {
        send(Frame(.goAway, payload: Frame.word(UInt32(last)) + Frame.word(code)))
    }

    func reset(_ stream: Int32, _ code: UInt32) {
        send(Frame(.reset, stream: stream, payload: Frame.word(code)))
    }

    func openWindow(_ stream: Int32, _ count: Int) {
        send(Frame(.windowUpdate, stream: stream, payload: Frame.word(UInt32(count))))
    }

    // MARK: Receiving

    /// Acknowledges SETTINGS and PING; `nil` at the end.
    func read() -> Frame? {
        guard let head = socket.read(9) else { return nil }
        let count = Int(head[0]) << 16 | Int(head[1]) << 8 | Int(head[2])
        let stream = head[5...8].reduce(Int32(0)) { $0 << 8 | Int32($1) }
        guard let payload = count == 0 ? [] : socket.read(count) else { return nil }
        let frame = Frame(kind: head[3], flags: head[4], stream: stream, payload: payload)
        if frame.is(.settings), frame.flags == 0 { send(Frame(.settings, flags: 1)) }
        if frame.is(.ping), frame.flags == 0 { send(Frame(.ping, flags: 1, payload: payload)) }
        return frame
    }

    /// The next frame of that kind.
    func read(_ kind: Frame.Kind) -> Frame? {
        while let frame = read() { if frame.is(kind) { return frame } }
        return nil
    }

    /// The next request that has begun, without its body.
    func readHead() -> Request? {
        while let frame = read() {
            if let request = take(frame), frame.is(.headers) { return request }
        }
        return nil
    }

    /// The next request that is whole.
    func readRequest() -> Request? {
        while let frame = read() {
            guard let request = take(frame) else { continue }
            if request.isWhole {
                open[request.stream] = nil
                return request
            }
        }
        return nil
    }

    private func take(_ frame: Frame) -> Request? {
        var request = open[frame.stream] ?? Request(stream: frame.stream)
        if frame.is(.headers) {
            let fields = inflate(frame.payload)
            if request.fields.isEmpty { request.fields = fields } else { request.trailers = fields }
        } else if frame.is(.data) {
            request.body += frame.payload
            if opensWindows, !frame.payload.isEmpty {
                openWindow(0, frame.payload.count)
                if !frame.endsStream { openWindow(frame.stream, frame.payload.count) }
            }
        } else {
            others.append(frame)
            return nil
        }
        request.isWhole = frame.endsStream
        open[frame.stream] = request
        return request
    }

    private func inflate(_ block: [UInt8]) -> [(String, String)] {
        var fields: [(String, String)] = []
        var rest = block[...]
        while !rest.isEmpty {
            var pair = nghttp2_nv()
            var flags: Int32 = 0
            let used = rest.withUnsafeBufferPointer {
                nghttp2_hd_inflate_hd2(inflater, &pair, &flags, $0.baseAddress, $0.count, 1)
            }
            guard used >= 0 else { return fields }
            rest = rest.dropFirst(used)
            if flags & Int32(NGHTTP2_HD_INFLATE_EMIT.rawValue) != 0 {
                func text(_ base: UnsafeMutablePointer<UInt8>, _ count: Int) -> String {
                    String(
                        decoding: UnsafeBufferPointer(start: base, count: count), as: UTF8.self)
                }
                fields.append((text(pair.name, pair.namelen), text(pair.value, pair.valuelen)))
            }
            if flags & Int32(NGHTTP2_HD_INFLATE_FINAL.rawValue) != 0 {
                nghttp2_hd_inflate_end_headers(inflater)
                break
            }
        }
        return fields
    }
}

extension TestUpstream {
    /// An upstream that speaks HTTP/2.
    static func http2(
        settings: [(UInt16, UInt32)] = [],
        serve: @escaping @Sendable (TestUpstream, HTTP2FramePeer) -> Void
    ) throws -> TestUpstream {
        try TestUpstream { upstream, socket in
            if let peer = HTTP2FramePeer(socket, settings: settings) { serve(upstream, peer) }
        }
    }
}
