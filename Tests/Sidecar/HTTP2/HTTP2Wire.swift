import CNghttp2
import Glibc

@testable import SidecarCore

/// The client's side of an HTTP/2 connection, frame by frame, so that a test can also say what no
/// library would. Only the compression of received heads is nghttp2's.
final class HTTP2Wire {
    struct Frame {
        var type: UInt8
        var flags: UInt8
        var stream: UInt32
        var payload: [UInt8]
    }

    /// What has come of one stream.
    struct Answer {
        var status = 0
        var informational: [Int] = []
        var fields: [(String, String)] = []
        var body: [UInt8] = []
        var trailers: [(String, String)] = []
        var isWhole = false
        var reset: UInt32?

        var text: String { String(decoding: body, as: UTF8.self) }
        subscript(name: String) -> String? { fields.first { $0.0 == name }?.1 }
        var isOver: Bool { isWhole || reset != nil }
    }

    enum Kind {
        static let data: UInt8 = 0
        static let headers: UInt8 = 1
        static let priority: UInt8 = 2
        static let reset: UInt8 = 3
        static let settings: UInt8 = 4
        static let push: UInt8 = 5
        static let ping: UInt8 = 6
        static let goAway: UInt8 = 7
        static let windowUpdate: UInt8 = 8
        static let continuation: UInt8 = 9
    }

    static let preface = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8)
    static let endStream: UInt8 = 1
    static let endHeaders: UInt8 = 4

    let socket: TestSocket
    private(set) var answers: [UInt32: Answer] = [:]
    private(set) var goAways: [(last: UInt32, code: UInt32)] = []
    private(set) var pongs: [[UInt8]] = []
    private(set) var windowUpdates: [UInt32: Int] = [:]
    private(set) var isOver = false
    /// Whether windows are opened by what came.
    var opensWindows = true
    var acknowledgesPings = true
    var acknowledgesSettings = true
    private var inflater: OpaquePointer?

    init(to address: SocketAddress, settings: [(UInt16, UInt32)] = [], begins: Bool = true) {
        socket = TestSocket(to: address)
        nghttp2_hd_inflate_new(&inflater)
        guard begins else { return }
        socket.send(Self.preface)
        send(Kind.settings, settings.flatMap { Self.two($0) + Self.four($1) })
    }

    deinit { nghttp2_hd_inflate_del(inflater) }

    // MARK: Sending

    static func two(_ value: UInt16) -> [UInt8] { [UInt8(value >> 8), UInt8(value & 255)] }
    static func four(_ value: UInt32) -> [UInt8] {
        [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: value >> UInt32($0)) }
    }

    static func frame(
        _ type: UInt8, flags: UInt8 = 0, stream: UInt32 = 0, _ payload: [UInt8]
    ) -> [UInt8] {
        Array(four(UInt32(payload.count)).dropFirst()) + [type, flags] + four(stream) + payload
    }

    @discardableResult
    func send(_ type: UInt8, flags: UInt8 = 0, stream: UInt32 = 0, _ payload: [UInt8]) -> Bool {
        socket.send(Self.frame(type, flags: flags, stream: stream, payload))
    }

    /// RFC 7541 §6.2.2: literals, neither indexed nor compressed.
    static func block(_ fields: [(String, String)]) -> [UInt8] {
        fields.flatMap { [0] + string($0.0) + string($0.1) }
    }

    private static func string(_ text: String) -> [UInt8] {
        let bytes = Array(text.utf8)
        guard bytes.count >= 127 else { return [UInt8(bytes.count)] + bytes }
        var rest = bytes.count - 127
        var length: [UInt8] = [127]
        while rest >= 128 {
            length.append(UInt8(rest & 127 | 128))
            rest >>= 7
        }
        return length + [UInt8(rest)] + bytes
    }

    static func head(
        _ method: String = "GET", _ path: String = "/", _ more: [(String, String)] = []
    ) -> [(String, String)] {
        [(":method", method), (":scheme", "http"), (":path", path), (":authority", "agent")] + more
    }

    @discardableResult
    func request(_ stream: UInt32, _ fields: [(String, String)], ends: Bool = true) -> Bool {
        send(
            Kind.headers, flags: Self.endHeaders | (ends ? Self.endStream : 0), stream: stream,
            Self.block(fields))
    }

    func get(_ stream: UInt32, _ path: String, _ more: [(String, String)] = []) {
        request(stream, Self.head("GET", path, more))
    }

    func data(_ stream: UInt32, _ bytes: [UInt8], ends: Bool = true) {
        send(Kind.data, flags: ends ? Self.endStream : 0, stream: stream, bytes)
    }

    func openWindow(_ stream: UInt32, _ bytes: Int) {
        send(Kind.windowUpdate, stream: stream, Self.four(UInt32(bytes)))
    }

    // MARK: Receiving

    /// The next frame, with the usual replies; `nil` at the end.
    @discardableResult
    func next() -> Frame? {
        guard let head = socket.read(9) else {
            isOver = true
            return nil
        }
        let count = Int(head[0]) << 16 | Int(head[1]) << 8 | Int(head[2])
        guard let payload = socket.read(count) else {
            isOver = true
            return nil
        }
        let stream = head[5...].reduce(UInt32(0)) { $0 << 8 | UInt32($1) } & 0x7FFF_FFFF
        let frame = Frame(type: head[3], flags: head[4], stream: stream, payload: payload)
        take(frame)
        return frame
    }

    private func take(_ frame: Frame) {
        let number = frame.payload.prefix(4).reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
        switch frame.type {
        case Kind.data:
            answers[frame.stream, default: Answer()].body += frame.payload
            if frame.flags & Self.endStream != 0 { answers[frame.stream]?.isWhole = true }
            if opensWindows, !frame.payload.isEmpty {
                openWindow(0, frame.payload.count)
                if frame.flags & Self.endStream == 0 {
                    openWindow(frame.stream, frame.payload.count)
                }
            }
        case Kind.headers: takeHead(frame)
        case Kind.reset: answers[frame.stream, default: Answer()].reset = number
        case Kind.settings where frame.flags & 1 == 0:
            if acknowledgesSettings { send(Kind.settings, flags: 1, []) }
        case Kind.ping where frame.flags & 1 == 0:
            if acknowledgesPings { send(Kind.ping, flags: 1, frame.payload) }
        case Kind.ping: pongs.append(frame.payload)
        case Kind.goAway:
            let code = frame.payload.dropFirst(4).prefix(4).reduce(UInt32(0)) {
                $0 << 8 | UInt32($1)
            }
            goAways.append((number & 0x7FFF_FFFF, code))
        case Kind.windowUpdate: windowUpdates[frame.stream, default: 0] += Int(number)
        default: break
        }
    }

    private func takeHead(_ frame: Frame) {
        var answer = answers[frame.stream] ?? Answer()
        let fields = inflate(frame.payload)
        let status = fields.first { $0.0 == ":status" }.flatMap { Int($0.1) }
        let rest = fields.filter { $0.0 != ":status" }
        if let status, status < 200 {
            answer.informational.append(status)
        } else if let status {
            answer.status = status
            answer.fields = rest
        } else {
            answer.trailers = rest
        }
        answer.isWhole = frame.flags & Self.endStream != 0
        answers[frame.stream] = answer
    }

    private func inflate(_ block: [UInt8]) -> [(String, String)] {
        var fields: [(String, String)] = []
        block.withUnsafeBufferPointer { bytes in
            guard var position = bytes.baseAddress else { return }
            var left = bytes.count
            while true {
                var pair = nghttp2_nv()
                var flags: Int32 = 0
                let count = nghttp2_hd_inflate_hd2(inflater, &pair, &flags, position, left, 1)
                guard count >= 0 else { return }
                position += count
                left -= count
                if flags & Int32(NGHTTP2_HD_INFLATE_EMIT.rawValue) != 0 {
                    fields.append(
                        (Self.text(pair.name, pair.namelen), Self.text(pair.value, pair.valuelen)))
                }
                if flags & Int32(NGHTTP2_HD_INFLATE_FINAL.rawValue) != 0 { break }
            }
            nghttp2_hd_inflate_end_headers(inflater)
        }
        return fields
    }

    private static func text(_ base: UnsafeMutablePointer<UInt8>?, _ count: Int) -> String {
        String(decoding: UnsafeBufferPointer(start: base, count: count), as: UTF8.self)
    }

    /// Reads until the stream is over.
    func answer(_ stream: UInt32) -> Answer {
        while answers[stream]?.isOver != true, next() != nil {}
        return answers[stream] ?? Answer()
    }

    /// Reads until something has happened or the connection is over.
    func read(until done: (HTTP2Wire) -> Bool) -> Bool {
        while !done(self) {
            guard next() != nil else { return done(self) }
        }
        return true
    }

    /// Whether the connection ends, and the code of the GOAWAY that said why.
    func end() -> UInt32? {
        while next() != nil {}
        return goAways.last?.code
    }
}
