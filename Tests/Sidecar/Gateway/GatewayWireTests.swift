import Glibc
import Synchronization
import Testing
import WeirCore
import WeirCrypto
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

@testable import SidecarCore
@testable import SidecarGateway

/// Lets the delegation through to the handler, as admission does once its seal holds.
private final class TrustingInterceptor: Interceptor {
    private let handler: LocalHandler
    init(_ handler: LocalHandler) { self.handler = handler }

    override func requestBegan(_ exchange: Exchange) -> Verdict {
        exchange.trustsPeer = true
        return .local(handler)
    }
}

/// The gateway on real sockets, with a real journal, in front of listeners that take delegations as
/// sidecars do.
@Suite(.timeLimit(.minutes(1))) struct GatewayWireTests {
    /// A ledger in a folder of its own, with a local grant for alice.
    private final class Money {
        let folder: String
        let ledger: SidecarLedger
        let limit: NanoUSD

        init(dollars: String) throws {
            var template = Array("/tmp/weir-gateway-XXXXXX".utf8CString)
            folder = try #require(mkdtemp(&template).map { String(cString: $0) })
            ledger = try SidecarLedger(SidecarLedger.Configuration(directory: folder))
            try ledger.beginStandalone()
            limit = try #require(NanoUSD(usd: dollars))
            let terms = AccountTerms(
                key: GatewayWireTests.account.key(at: SidecarLedger.wallTime()), limit: limit,
                maxLease: limit, policyNumber: 17)
            ledger.grantLocally(terms, amount: limit)
        }

        deinit {
            // Files of the journal and nothing below them.
            guard let directory = opendir(folder) else { return }
            while let entry = readdir(directory) {
                let name = withUnsafePointer(to: entry.pointee.d_name) {
                    $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
                }
                unlink(folder + "/" + name)
            }
            closedir(directory)
            rmdir(folder)
        }
    }

    private static let account = SubjectBinding.Account(
        unit: .usd, scope: .user, period: .forever, id: "alice", limit: NanoUSD(5_000_000_000))

    private static let binding = SubjectBinding(
        user: "alice", tenant: nil, tier: "gold", roles: [], accounts: [account], preferences: nil,
        timeToLiveMilliseconds: 60_000)

    private struct NoMetrics: GatewayMetrics {
        func analysisEnded(type: String, tier: String, status: String, nanoseconds: UInt64) {}
        func observed(_ reasons: [Reason], tier: String) {}
        func stepsEnded(_ steps: [StepReport]) {}
        var vitals: GatewayVitals { GatewayVitals() }
    }

    /// A listener that opens each delegation, answers, and settles in a header.
    private static func sidecar(
        react: @escaping @Sendable (String) -> (status: Int, body: String, cost: Int64)
    ) throws -> SidecarServer {
        let configuration = ServerConfiguration(listen: .loopback(port: 0))
        return try SidecarServer(configuration) { _ in
            let handler = LocalHandler { request in
                let key = GatewayFixture.hopKey
                guard let text = request.field(Delegation.headerName),
                    let payload = Sealed.open(text, key: key),
                    let delegation = Delegation(payload: payload),
                    delegation.path == request.path
                else { return LocalResponse(status: 403, contentType: "text/plain", []) }
                let (status, body, cost) = react(delegation.agent)
                let settlement = Settlement(
                    keyID: 3, key: delegation.key, consumed: NanoUSD(cost), isFinal: true,
                    source: .reported, reason: .admitted, model: "")
                return LocalResponse(
                    status: status,
                    fields: [
                        ("content-type", "application/json"),
                        (Settlement.headerName, Sealed.seal(settlement.payload, key: key)),
                    ], body: .bytes(Array(body.utf8)))
            }
            return TrustingInterceptor(handler)
        }
    }

    private static func gateway(
        _ money: Money, endpoints: [String: String]
    ) throws -> SidecarServer {
        let state = GatewayState()
        let projection = Projection(
            version: PolicyVersion(epoch: 1, number: 17, hash: "ab"), documents: [],
            endpoints: endpoints.sorted { $0.key < $1.key }.enumerated().map { index, pair in
                Projection.Endpoint(
                    agent: pair.key, incarnation: Incarnation(Int64(100 + index)),
                    address: pair.value,
                    hopKey: HopKey(id: 3, secret: Base64URL.encode(GatewayFixture.hopKey)))
            })
        state.apply(projection, policy: try GatewayFixture.policy(), incarnation: Incarnation(0))
        let verifier = try #require(TokenVerifier(keys: [TokenVerifierTests.key]))
        let ledger = money.ledger
        var binding = Self.binding
        binding.accounts[0].limit = money.limit
        let bound = binding
        let service = GatewayService(
            configuration: GatewayConfiguration(verifier: verifier),
            dependencies: GatewayDependencies(
                snapshot: { state.snapshot }, bind: { _ in .bound(bound) },
                ledger: { binding, snapshot, clock in
                    LedgerAccounts(
                        ledger: ledger, binding: binding, snapshot: snapshot, clock: clock,
                        isControlPlaneReachable: { true })
                },
                ask: { _, _ in .unavailable }, idempotency: { _ in .unavailable },
                controlPlane: { ControlPlaneView(isReachable: true, silentMilliseconds: 0) },
                metrics: NoMetrics()))
        return try SidecarServer(ServerConfiguration(listen: .loopback(port: 0))) { worker in
            GatewayInterceptor.make(service: service, state: state, worker: worker)
        }
    }

    private func analyze(_ server: SidecarServer) throws -> (status: Int, body: JSONValue) {
        let (status, _, body) = try answer(server)
        return (status, body)
    }

    private func answer(
        _ server: SidecarServer
    ) throws -> (status: Int, fields: [(name: String, value: String)], body: JSONValue) {
        let body = #"{"analysis_type": "news", "data": {"text": "up"}}"#
        // Far from its end whenever the test runs: the server's clock is the real one.
        let token = TokenVerifierTests.token(payload: #"{"sub":"alice","exp":4102444800}"#)
        let socket = TestSocket(to: server.address)
        socket.send(
            "POST /analyze HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n"
                + "Authorization: Bearer \(token)\r\nContent-Length: \(body.utf8.count)\r\n"
                + "Connection: close\r\n\r\n\(body)")
        var lines: [String] = []
        while let line = socket.readLine(), !line.isEmpty { lines.append(line) }
        let status = lines.first?.split(separator: " ").dropFirst().first.flatMap { Int($0) }
        let fields = lines.dropFirst().compactMap { line in
            line.firstRange(of: ": ").map {
                (name: line[..<$0.lowerBound].lowercased(), value: String(line[$0.upperBound...]))
            }
        }
        let length = fields.first { $0.name == "content-length" }.flatMap { Int($0.value) }
        let count = try #require(length)
        let bytes = try #require(socket.read(count))
        return (try #require(status), fields, try JSON.parse(bytes))
    }

    private func healthy(_ agent: String) -> (status: Int, body: String, cost: Int64) {
        agent == "mood"
            ? (200, TestTransport.mood, 120_000) : (200, TestTransport.prose, 500_000)
    }

    @Test func anAnalysisGoesOverTheWireAndIsPaid() throws {
        let money = try Money(dollars: "5")
        let sidecar = try Self.sidecar { [self] in healthy($0) }
        let address = sidecar.address.description
        let gateway = try Self.gateway(
            money, endpoints: ["mood": address, "writer": address, "scribe": address])
        defer {
            gateway.stop()
            sidecar.stop()
        }
        let (status, body) = try analyze(gateway)
        #expect(status == 200, "\(body.prettyText)")
        #expect(body["status"] == "complete")
        #expect(body["cost"]?["total_usd"] == "0.000620")
        #expect(body["cost"]?["budget_remaining_usd"] == "4.999380")
        let key = Self.account.key(at: SidecarLedger.wallTime())
        #expect(money.ledger.position(of: key)?.ownConsumed == NanoUSD(620_000))
    }

    /// By the exchange that carries it, whatever made the answer.
    @Test func everyAnswerNamesItsRequestOnce() throws {
        let sidecar = try Self.sidecar { [self] in healthy($0) }
        defer { sidecar.stop() }
        let address = sidecar.address.description
        // The second one is refused: its step may cost more than there is.
        for (dollars, member) in [("5", "id"), ("0.0001", "request_id")] {
            let money = try Money(dollars: dollars)
            let gateway = try Self.gateway(money, endpoints: ["mood": address, "writer": address])
            defer { gateway.stop() }
            let (_, fields, body) = try answer(gateway)
            let ids = fields.filter { $0.name == "weir-request-id" }.map(\.value)
            #expect(ids.count == 1 && ids.first == body[member]?.string, "\(body.prettyText)")
            let versions = fields.filter { $0.name == "weir-policy-version" }.map(\.value)
            #expect(versions == ["17"])
        }
    }

    /// A fixed price and money for three: three are served however many ask at once, and no more.
    @Test func noneIsServedBeyondTheBudget() throws {
        let money = try Money(dollars: "0.00036")
        let sidecar = try Self.sidecar { agent in
            agent == "mood" ? (200, TestTransport.mood, 120_000) : (500, "{}", 0)
        }
        let address = sidecar.address.description
        let gateway = try Self.gateway(money, endpoints: ["mood": address])
        defer {
            gateway.stop()
            sidecar.stop()
        }
        var reasons: [String] = []
        for _ in 0..<5 {
            let (_, body) = try analyze(gateway)
            let mood = body["steps"]?.array?.first
            reasons.append(
                mood?["status"] == "ok" ? "ok" : mood?["problem"]?["reason"]?.string ?? "none")
        }
        #expect(
            reasons == ["ok", "ok", "ok", "budget_exhausted", "budget_exhausted"])
        let key = Self.account.key(at: SidecarLedger.wallTime())
        #expect(money.ledger.position(of: key)?.remaining == .zero)
    }

    @Test func aSidecarThatIsGoneCostsNothing() throws {
        let money = try Money(dollars: "5")
        // Nobody listens on tcpmux.
        let address = "127.0.0.1:1"
        let gateway = try Self.gateway(money, endpoints: ["mood": address])
        defer { gateway.stop() }
        let (status, body) = try analyze(gateway)
        #expect(status == 502 || status == 503)
        #expect(body["cost"]?["total_usd"] == "0.000000")
        let key = Self.account.key(at: SidecarLedger.wallTime())
        #expect(money.ledger.position(of: key)?.leastOutstanding == .zero)
    }
}
