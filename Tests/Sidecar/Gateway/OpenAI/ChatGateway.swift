import SidecarCore
import Synchronization
import Testing
import WeirCore
import WeirMeshProtocol
import WeirPolicy

@testable import SidecarGateway

/// A gateway whose one user may chat with writer (model big, by other names grand and lab/big) and
/// scribe, which writer falls back to; mood does not chat, and reserve is not in the tier.
final class ChatGateway: Sendable {
    final class Seen: GatewayMetrics {
        let seen = Mutex<[String]>([])

        func analysisEnded(type: String, tier: String, status: String, nanoseconds: UInt64) {
            seen.withLock { $0.append("\(type) \(tier) \(status)") }
        }

        func observed(_ reasons: [Reason], tier: String) {}
        func stepsEnded(_ steps: [StepReport]) {}
        var vitals: GatewayVitals { GatewayVitals() }
    }

    /// What pays for the request at hand.
    private final class Purse: Sendable {
        let ledger = Mutex(TestLedger())
    }

    static let token = TokenVerifierTests.token(payload: TokenVerifierTests.good)

    let metrics = Seen()
    private let purse = Purse()
    private let service: GatewayService
    private let registry = Metrics()

    /// - Parameter bind: told what the control plane is asked; `nil` for the user alice.
    init(
        change: (inout Policy) -> Void = { _ in },
        bind: @escaping @Sendable (SubjectRequest) -> CallerBinding? = { _ in nil }
    ) throws {
        var policy = try Self.policy()
        change(&policy)
        let snapshot = try GatewayFixture.snapshot(policy)
        let binding = SubjectBinding(
            user: "alice", tenant: nil, tier: "gold", roles: [], accounts: [], preferences: nil,
            timeToLiveMilliseconds: 1_000)
        let purse = purse
        service = GatewayService(
            configuration: GatewayConfiguration(
                verifier: try #require(TokenVerifier(keys: [TokenVerifierTests.key]))),
            dependencies: GatewayDependencies(
                snapshot: { snapshot }, bind: { bind($0) ?? .bound(binding) },
                ledger: { _, _, _ in purse.ledger.withLock { $0 } },
                ask: { _, _ in .unavailable }, idempotency: { _ in .unavailable },
                controlPlane: { ControlPlaneView(isReachable: true, silentMilliseconds: 0) },
                metrics: metrics, cache: ResponseCache(registry)))
        service.show(on: registry)
    }

    private static func policy() throws -> Policy {
        var policy = try GatewayFixture.policy()
        policy.agents["writer"]?.models[0].aliases = ["grand", "lab/big"]
        policy.tiers["gold"]?.outputTokensMax = 300
        var reserve = try #require(policy.agents["scribe"])
        reserve.name = "reserve"
        reserve.models = [.init(id: "reserve-1", aliases: [])]
        policy.agents["reserve"] = reserve
        return policy
    }

    func request(
        _ method: String, _ path: String, body: String = "", token: String? = token
    ) -> GatewayRequest {
        var fields = [GatewayField("content-type", "application/json")]
        if let token { fields.append(GatewayField("authorization", "Bearer " + token)) }
        return GatewayRequest(
            id: GatewayServiceTests.id, method: method, path: path, fields: fields,
            body: Array(body.utf8))
    }

    func respond(
        to request: GatewayRequest, ledger: TestLedger = TestLedger(),
        transport: any AgentTransport = TestTransport.healthy
    ) async -> GatewayAnswer {
        purse.ledger.withLock { $0 = ledger }
        return await service.respond(
            to: request, on: GatewayWorker(transport: transport, clock: TestClock()) { _ in })
    }

    /// Requests that have a place at the gateway.
    var running: Int? {
        let lines = String(decoding: registry.exposition(), as: UTF8.self).split(separator: "\n")
        return lines.first { $0.hasPrefix("weir_gateway_requests_running ") }
            .flatMap { $0.split(separator: " ").last }.flatMap { Int($0) }
    }
}

/// A client that takes a streamed answer.
private final class TestWriter: AnswerWriter {
    let taken = Mutex<(bytes: [UInt8], pieces: Int, trailers: [GatewayField])>(([], 0, []))
    /// Goes away behind so many pieces.
    let piecesMax: Int

    init(piecesMax: Int) { self.piecesMax = piecesMax }

    func write(_ bytes: [UInt8]) async throws(CancellationError) {
        let isGone = taken.withLock { taken in
            taken.pieces += 1
            guard taken.pieces <= piecesMax else { return true }
            taken.bytes += bytes
            return false
        }
        if isGone { throw CancellationError() }
    }

    func addTrailer(_ field: GatewayField) { taken.withLock { $0.trailers.append(field) } }
}

extension GatewayAnswer {
    struct Written {
        let text: String
        let trailers: [GatewayField]
    }

    /// Takes a stream to its end.
    @discardableResult
    func written(piecesMax: Int = .max) async throws -> Written {
        guard case .stream(let write) = body else {
            Issue.record("the answer is not streamed")
            return Written(text: "", trailers: [])
        }
        let writer = TestWriter(piecesMax: piecesMax)
        try await write(writer)
        return writer.taken.withLock {
            Written(text: String(decoding: $0.bytes, as: UTF8.self), trailers: $0.trailers)
        }
    }

    func field(_ name: String) -> String? { fields.first { $0.name == name }?.value }

    /// Of an answer that is not streamed; empty for one that is.
    var bytes: [UInt8] {
        guard case .bytes(let bytes) = body else { return [] }
        return bytes
    }
}
