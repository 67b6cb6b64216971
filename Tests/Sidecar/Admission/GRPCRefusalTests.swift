import Testing
import WeirCore
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

@testable import SidecarCore

/// What a call of gRPC costs that the agent refuses: its HTTP status is 200 always.
@Suite struct GRPCRefusalTests {
    private typealias Peer = HTTP2FramePeer

    enum Answer: Sendable {
        /// Trailers alone.
        case refusal(GRPCStatus)
        /// A message, and then the status.
        case message(GRPCStatus)
        /// The stream is reset.
        case reset
        /// An HTTP status without a word of gRPC.
        case http(Int)
    }

    @Test(
        arguments: [
            (AgentPolicy.WhenAgentRefuses.free, Answer.refusal(.resourceExhausted), 0),
            (.free, .refusal(.unauthenticated), 0), (.free, .refusal(.permissionDenied), 0),
            (.free, .refusal(.unavailable), 0), (.free, .refusal(.invalidArgument), 0),
            (.free, .refusal(.notFound), 0), (.free, .refusal(.unimplemented), 0),
            (.free, .refusal(.failedPrecondition), 0), (.free, .http(429), 0),
            // Not refused, or after work, or not the agent's word.
            (.free, .refusal(.ok), 700), (.free, .refusal(.internalError), 700),
            (.free, .refusal(.unknown), 700), (.free, .refusal(.deadlineExceeded), 700),
            (.free, .refusal(.aborted), 700), (.free, .message(.resourceExhausted), 700),
            (.free, .reset, 700), (.free, .http(500), 700), (.free, .http(502), 700),
            (.charge, .refusal(.resourceExhausted), 700),
        ] as [(AgentPolicy.WhenAgentRefuses, Answer, Int64)])
    func whatARefusedCallCosts(
        policy: AgentPolicy.WhenAgentRefuses, answer: Answer, cost: Int64
    ) throws {
        let upstream = try TestUpstream.http2 { _, peer in
            while let request = peer.readRequest() { Self.say(answer, request.stream, peer) }
        }
        let agent = AdmissionFixture.openAI {
            $0.wireProtocol = .passthrough
            $0.path = "/"
            $0.whenAgentRefuses = policy
        }
        let price = AdmissionFixture.price {
            $0.tokens = .init()
            $0.perRequest = NanoUSD(700)
        }
        let fixture = try AdmissionFixture(
            upstream.address, allowance: NanoUSD(10_000), agent: agent, price: price, wire: .http2)
        let wire = HTTP2Wire(to: fixture.proxy.server.address)
        let fields = [("content-type", "application/grpc"), ("te", "trailers")]
        wire.request(1, HTTP2Wire.head("POST", "/a.B/C", fields), ends: false)
        wire.data(1, [0, 0, 0, 0, 1, 7])
        #expect(wire.answer(1).isOver)
        let record = try #require(fixture.waitForRecords(1).first)
        #expect(record.cost == NanoUSD(cost))
        #expect((record.source == .none) == (cost == 0))
    }

    private static func say(_ answer: Answer, _ stream: Int32, _ peer: Peer) {
        let head = [(":status", "200"), ("content-type", "application/grpc")]
        func status(_ status: GRPCStatus) -> (String, String) {
            ("grpc-status", "\(status.rawValue)")
        }
        switch answer {
        case .refusal(let code):
            peer.send(Peer.headers(stream, head + [status(code)], ends: true))
        case .message(let code):
            peer.send(
                Peer.headers(stream, head), Peer.data(stream, "\0\0\0\0\u{1}x"),
                Peer.headers(stream, [status(code)], ends: true))
        case .reset: peer.reset(stream, 2)
        case .http(let code):
            peer.send(Peer.headers(stream, [(":status", "\(code)")], ends: true))
        }
    }
}
