import Glibc
import WeirCore

@testable import SidecarCore

/// What a client may send over HTTP/2, behind its preface: a whole sidecar reads it from a socket,
/// with real streams, exchanges and answers. However it is cut, the same requests are understood in
/// the same order; each of them ends once; when the client is gone nothing is left of it; and what
/// it was sent is frames.
enum HTTP2ServerTarget {
    /// Answers depend on what else came before them, and with them which streams are open when
    /// there are many: only requests up to here are compared.
    private static let comparedMax = 90

    static func check(_ bytes: UnsafeRawBufferPointer) throws(PropertyFailure) {
        let whole = try serve(bytes, cuts: [bytes.count])
        for cuts in Pieces.cuts(bytes).dropFirst() {
            let split = try serve(bytes, cuts: cuts)
            let count = min(whole.count, split.count)
            guard max(whole.count, split.count) < comparedMax else { continue }
            // A stream that has been answered forgives other things than one that is still open,
            // so that one of the two may have ended the connection before the other.
            try require(
                whole.prefix(count) == split.prefix(count),
                "cut at \(cuts.prefix(4)): \(split), not \(whole)")
        }
    }

    private static func serve(
        _ bytes: UnsafeRawBufferPointer, cuts: [Int]
    ) throws(PropertyFailure) -> [String] {
        guard let loop = try? EventLoop() else { return [] }
        let conversation = Conversation(loop, bytes: Array(bytes), cuts: cuts)
        guard conversation.begin() else { return [] }
        loop.run()
        try conversation.requireEnd()
        return conversation.interceptor.begun
    }
}

/// Runs one sidecar until the client has gone and all has ended, turn by turn of its loop.
private final class Conversation: @unchecked Sendable {
    // SAFETY: touched by one thread, which is also the loop's.
    private static let preface = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8)
    private static let settings: [UInt8] = [0, 0, 0, 4, 0, 0, 0, 0, 0]
    /// Turns without a byte from the sidecar, after which it has nothing more to say.
    private static let quietTurnsMax = 6
    private static let endingTurnsMax = 200

    let interceptor: FuzzInterceptor
    private let loop: EventLoop
    private let worker: Worker
    private let bytes: [UInt8]
    private var cuts: ArraySlice<Int>
    private var position = 0
    private var client: Int32 = -1
    private var output: [UInt8] = []
    private var quietTurns = 0
    private var endingTurns = 0

    init(_ loop: EventLoop, bytes: [UInt8], cuts: [Int]) {
        self.loop = loop
        self.bytes = bytes
        self.cuts = cuts[...]
        worker = Worker(loop: loop)
        interceptor = FuzzInterceptor(worker)
    }

    func begin() -> Bool {
        var pair: [Int32] = [-1, -1]
        let type = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue)
        guard socketpair(AF_UNIX, type, 0, &pair) == 0 else { return false }
        client = pair[1]
        say(Self.preface + Self.settings)
        worker.serve(descriptor: pair[0], peer: .loopback(port: 1), interceptor: interceptor)
        loop.execute { self.turn() }
        return true
    }

    private func turn() {
        let heard = listen()
        interceptor.resumeOne()
        if client < 0 {
            endingTurns += 1
            let isOver = worker.connectionCount == 0 && interceptor.open == 0
            if isOver || endingTurns > Self.endingTurnsMax { return loop.stop() }
        } else if let cut = cuts.popFirst() {
            if cut > position { say(Array(bytes[position..<cut])) }
            position = max(position, cut)
        } else {
            quietTurns = heard ? 0 : quietTurns + 1
            if quietTurns > Self.quietTurnsMax {
                close(client)
                client = -1
            }
        }
        loop.execute { self.turn() }
    }

    private func say(_ bytes: [UInt8]) {
        // The socket takes more than the longest input; when the sidecar has closed, nothing.
        _ = send(client, bytes, bytes.count, Int32(MSG_NOSIGNAL))
    }

    private func listen() -> Bool {
        guard client >= 0 else { return false }
        var buffer = [UInt8](repeating: 0, count: 65_536)
        let count = recv(client, &buffer, buffer.count, 0)
        if count > 0 { output += buffer[..<count] }
        return count > 0
    }

    func requireEnd() throws(PropertyFailure) {
        try require(worker.connectionCount == 0, "the connection outlives its client")
        try require(interceptor.open == 0, "\(interceptor.open) exchanges have no end")
        try require(!interceptor.endedTwice, "an exchange ended that was not open")
        try require(
            loop.pool.lentBytes == 0, "\(loop.pool.lentBytes) bytes are still lent")
        try requireFrames()
    }

    /// The first is SETTINGS, and all are as long as they say.
    private func requireFrames() throws(PropertyFailure) {
        var offset = 0
        while offset + 9 <= output.count {
            let length =
                Int(output[offset]) << 16 | Int(output[offset + 1]) << 8 | Int(output[offset + 2])
            try require(length <= 16_384, "a frame of \(length) bytes")
            try require(offset > 0 || output[3] == 4, "a frame before SETTINGS")
            try require(output[offset + 3] <= 9, "a frame of type \(output[offset + 3])")
            offset += 9 + length
        }
    }
}

/// Does with a request what the first letter of its path says.
private final class FuzzInterceptor: Interceptor {
    private(set) var begun: [String] = []
    private(set) var open = 0
    private(set) var endedTwice = false
    private var waiting: [Exchange] = []
    private let nobody: UpstreamTarget

    init(_ worker: Worker) {
        // Whom nobody listens for: the request waits for the connect, and is refused.
        nobody = UpstreamTarget(
            name: "nobody", worker: worker, addresses: [.loopback(port: 1)])
        super.init()
    }

    override func requestBegan(_ exchange: Exchange) -> Verdict {
        let head = exchange.requestHead
        let path = head.text(head.target)
        let fields = (0..<head.fieldCount).map { index in
            let field = head.field(index)
            return "\(head.text(field.name)): \(head.text(field.value))"
        }
        begun.append("\(head.text(head.methodRange)) \(path) \(fields)")
        open += 1
        switch path.utf8.dropFirst().first {
        case UInt8(ascii: "r"): return .refuse(Refusal(.rateLimited, retryAfterSeconds: 1))
        case UInt8(ascii: "h"): return .holdBody(bytesMax: 64)
        case UInt8(ascii: "u"): return .admit(nobody)
        case UInt8(ascii: "s"): return .local(Self.stream)
        case UInt8(ascii: "w"):
            waiting.append(exchange)
            return .wait
        default: return .local(Self.echo)
        }
    }

    override func requestBodyHeld(
        _ exchange: Exchange, _ body: UnsafeRawBufferPointer
    ) -> Verdict { body.isEmpty ? .refuse(Refusal(.invalid)) : .local(Self.echo) }

    override func exchangeEnded(_ exchange: Exchange, _ outcome: ExchangeOutcome) {
        open -= 1
        if open < 0 { endedTwice = true }
    }

    func resumeOne() {
        if let exchange = waiting.popLast() { exchange.resume(with: .local(Self.stream)) }
    }

    private static var echo: LocalHandler {
        LocalHandler(bodyBytesMax: 1_024) { request in
            LocalResponse(status: 200, contentType: "text/plain", request.body)
        }
    }

    /// Longer than the window of a stream.
    private static var stream: LocalHandler {
        LocalHandler { request in
            LocalResponse(
                status: 200,
                body: .stream { writer in
                    try await writer.write(request.body)
                    for _ in 0..<3 { try await writer.write([UInt8](repeating: 1, count: 30_000)) }
                    writer.addTrailer("weir-settlement", "paid")
                }, trailerNames: "weir-settlement")
        }
    }
}
