import HTTPTypes
import NIOCore
import NIOHTTP2
import NIOHTTPTypes
import NIOHTTPTypesHTTP2
import NIOPosix
import WeirCore
import WeirLedger
import WeirMeshProtocol

/// One HTTP/2 connection with prior knowledge, as a sidecar opens it.
struct MeshConnection: Sendable {
    struct Answer: Sendable {
        var status: Int
        var bytes: [UInt8]

        func decode<T: Decodable>(_ type: T.Type) throws -> T { try JSON.decode(type, from: bytes) }
        func refusal() throws -> MeshRefusal { try decode(MeshRefusal.self) }
    }

    private typealias Multiplexer = NIOHTTP2Handler.AsyncStreamMultiplexer<Void>
    private typealias Stream = NIOAsyncChannel<HTTPResponsePart, HTTPRequestPart>

    private let channel: any Channel
    private let multiplexer: Multiplexer

    static func open(port: Int) async throws -> MeshConnection {
        try await ClientBootstrap(group: .singletonMultiThreadedEventLoopGroup)
            .connect(host: "127.0.0.1", port: port) { channel in
                channel.configureAsyncHTTP2Pipeline(mode: .client) { stream in
                    stream.eventLoop.makeSucceededVoidFuture()
                }.map { MeshConnection(channel: channel, multiplexer: $0) }
            }
    }

    func close() async throws { try await channel.close() }

    private func stream(
        _ method: String, _ path: String, session: String?
    ) async throws -> (Stream, HTTPRequest) {
        let stream = try await multiplexer.openStream { channel in
            channel.eventLoop.makeCompletedFuture {
                try channel.pipeline.syncOperations.addHandler(
                    HTTP2FramePayloadToHTTPClientCodec())
                return try Stream(wrappingChannelSynchronously: channel)
            }
        }
        var head = HTTPRequest(
            method: HTTPRequest.Method(rawValue: method) ?? .get, scheme: "http",
            authority: "mesh", path: path)
        if let session { head.headerFields[.authorization] = "Bearer " + session }
        return (stream, head)
    }

    func send(
        _ method: String, _ path: String, _ body: [UInt8]? = nil, session: String? = nil
    ) async throws -> Answer {
        let (stream, head) = try await stream(method, path, session: session)
        return try await stream.executeThenClose { inbound, outbound in
            try await outbound.write(.head(head))
            if let body { try await outbound.write(.body(ByteBuffer(bytes: body))) }
            try await outbound.write(.end(nil))
            var answer = Answer(status: 0, bytes: [])
            for try await part in inbound {
                switch part {
                case .head(let head): answer.status = head.status.code
                case .body(let buffer): answer.bytes += buffer.readableBytesView
                case .end: break
                }
            }
            return answer
        }
    }

    /// Follows a watch line by line until the body returns. The lines' own arrival is what the body
    /// waits for.
    @concurrent func watch<T: Sendable>(
        _ path: String, session: String,
        _ body: @concurrent (inout LineIterator) async throws -> T
    ) async throws -> T {
        let (stream, head) = try await stream("GET", path, session: session)
        return try await stream.executeThenClose { inbound, outbound in
            try await outbound.write(.head(head))
            try await outbound.write(.end(nil))
            var lines = LineIterator(parts: inbound.makeAsyncIterator())
            return try await body(&lines)
        }
    }

    struct LineIterator {
        var parts: NIOAsyncChannelInboundStream<HTTPResponsePart>.AsyncIterator
        private var pending: [UInt8] = []

        init(parts: NIOAsyncChannelInboundStream<HTTPResponsePart>.AsyncIterator) {
            self.parts = parts
        }

        /// The next line; `nil` at the end of the answer.
        @concurrent mutating func next() async throws -> PolicyEvent? {
            while true {
                if let end = pending.firstIndex(of: UInt8(ascii: "\n")) {
                    let line = Array(pending[..<end])
                    pending.removeSubrange(...end)
                    return try JSON.decode(PolicyEvent.self, from: line)
                }
                guard let part = try await parts.next() else { return nil }
                if case .body(let buffer) = part { pending += buffer.readableBytesView }
            }
        }

        /// The next projection, with bookmarks and recalls skipped.
        @concurrent mutating func nextProjection() async throws -> (hash: String, Projection)? {
            while let event = try await next() {
                if case .projection(let hash, let projection) = event { return (hash, projection) }
            }
            return nil
        }
    }
}

/// A sidecar of a test, with its session.
struct JoinedSidecar: Sendable {
    let connection: MeshConnection
    let response: JoinResponse

    static let health = SidecarHealth(
        state: .serving, reasons: [], requestsInFlight: 0, journalBytes: 1_024)

    func post(_ path: String, _ message: some Encodable) async throws -> MeshConnection.Answer {
        try await connection.send(
            "POST", path, try JSON.encode(message), session: response.session)
    }

    func report(_ finals: [ChildFinal] = []) async throws -> MeshConnection.Answer {
        try await post(
            MeshPath.report,
            Report(
                highestLease: 0, leases: [], childFinals: finals, acknowledgedFinals: [],
                health: Self.health))
    }
}
