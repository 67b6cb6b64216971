import Synchronization
import Testing
import WeirCore
import WeirCrypto
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

@testable import SidecarGateway

/// A small mesh on paper: mood (fixed price), writer (dear), scribe (cheap), and plans over them.
enum GatewayFixture {
    static let documents = """
        [
          {"apiVersion": "weir.mesh/v1", "kind": "Agent", "metadata": {"name": "mood"},
           "spec": {"protocol": "huggingface", "path": "/mood", "models": [{"id": "mood-1"}]}},
          {"apiVersion": "weir.mesh/v1", "kind": "Agent", "metadata": {"name": "writer"},
           "spec": {"protocol": "openai", "path": "/v1/chat/completions", "outputTokensMax": 100,
                    "models": [{"id": "big"}], "fallbacks": ["scribe"],
                    "prompt": {"system": "Be brief.", "user": "{{mood}}: {{text}}"}}},
          {"apiVersion": "weir.mesh/v1", "kind": "Agent", "metadata": {"name": "scribe"},
           "spec": {"protocol": "openai", "path": "/v1/chat/completions", "outputTokensMax": 100,
                    "models": [{"id": "small"}], "prompt": {"user": "{{mood}}: {{text}}"}}},
          {"apiVersion": "weir.mesh/v1", "kind": "Agent", "metadata": {"name": "risk"},
           "spec": {"protocol": "json", "path": "/risk"}},
          {"apiVersion": "weir.mesh/v1", "kind": "Tier", "metadata": {"name": "gold"},
           "spec": {"monthlyBudget": "100", "agents": ["mood", "writer", "scribe", "risk"],
                    "concurrentRequestsMax": 1}},
          {"apiVersion": "weir.mesh/v1", "kind": "Tier", "metadata": {"name": "none"},
           "spec": {"monthlyBudget": "1", "agents": []}},
          {"apiVersion": "weir.mesh/v1", "kind": "PriceTable", "metadata": {"name": "list"},
           "spec": {"dated": "2026-11-01", "prices": [
             {"model": "mood-1", "perRequest": "0.000120"}, {"model": "risk", "perRequest": "0.01"},
             {"model": "big", "tokens": {"input": "10", "output": "30"}},
             {"model": "small", "tokens": {"input": "0.05", "output": "0.25"}}]}},
          {"apiVersion": "weir.mesh/v1", "kind": "RequestType", "metadata": {"name": "news"},
           "spec": {"inputSchema": {"type": "object", "required": ["text"],
               "additionalProperties": false,
               "properties": {"text": {"type": "string", "minLength": 1}}},
             "steps": [
               {"name": "mood", "agents": {"gold": ["mood"]}, "input": {"text": "/data/text"}},
               {"name": "prose", "agents": {"gold": ["writer"]},
                "input": {"text": "/data/text", "mood": "/steps/mood/result/label"}}]}},
          {"apiVersion": "weir.mesh/v1", "kind": "RequestType", "metadata": {"name": "wide"},
           "spec": {"inputSchema": {"type": "object", "properties": {
               "text": {"type": "string"}, "positions": {"type": "array"}}},
             "steps": [
               {"name": "risk", "agents": {"gold": ["risk"]},
                "input": {"positions": "/data/positions"}},
               {"name": "mood", "agents": {"gold": ["mood"]}, "required": false,
                "input": {"text": "/data/text"}},
               {"name": "summary", "agents": {"gold": ["scribe"]}, "required": false,
                "after": ["risk"],
                "input": {"text": "/steps/risk/result",
                          "mood": {"from": "/steps/mood/result/label", "optional": true}}}]}}
        ]
        """

    static func policy() throws -> Policy {
        try PolicyReader.read(try #require(try JSON.parse(documents).array))
    }

    static let hopKey = [UInt8](repeating: 7, count: 32)

    static func snapshot(
        _ changed: Policy? = nil, without missing: Set<String> = []
    ) throws -> GatewaySnapshot {
        let policy = try changed ?? policy()
        let agents = policy.agents.keys.filter { !missing.contains($0) }.sorted()
        let endpoints = agents.enumerated().map { index, agent in
            Projection.Endpoint(
                agent: agent, incarnation: Incarnation(Int64(100 + index)),
                address: "127.0.0.1:\(9000 + index)",
                hopKey: HopKey(id: 3, secret: Base64URL.encode(hopKey)))
        }
        return GatewaySnapshot(
            version: PolicyVersion(epoch: 1, number: 17, hash: "ab"), policy: policy,
            incarnation: Incarnation(5), endpoints: endpoints)
    }

    static func tier(_ name: String = "gold") throws -> TierPolicy {
        try #require(try policy().tiers[name])
    }

    static func context(
        _ type: String, _ data: JSONValue, transport: any AgentTransport,
        ledger: any CallerLedger = TestLedger(), clock: any GatewayClock = TestClock(),
        snapshot: GatewaySnapshot? = nil, maxCost: NanoUSD? = nil,
        agents: [String: AnalyzeRequest.Choice] = [:], preferences: Preferences = Preferences(),
        picker: EndpointPicker = EndpointPicker(), latencies: AgentLatencies = AgentLatencies(),
        events: RunEvents? = nil
    ) throws -> RunContext {
        let snapshot = try snapshot ?? self.snapshot()
        let request = AnalyzeRequest(
            type: try #require(snapshot.policy.requestTypes[type]), data: data, maxCost: maxCost,
            timeoutMilliseconds: 1_000, agents: agents)
        return RunContext(
            snapshot: snapshot,
            caller: Caller(
                user: "alice", tenant: nil, tier: try tier(), roles: [], preferences: preferences),
            request: request, requestID: Identifier(high: 1, low: 1),
            runID: Identifier(high: 1, low: 1), trace: nil,
            deadlineNanoseconds: clock.nowNanoseconds + 1_000_000_000, ledger: ledger,
            transport: transport, clock: clock, picker: picker, budget: RunBudget(limit: maxCost),
            latencies: latencies, events: events)
    }
}

/// One account in memory, with the ledger's arithmetic and none of its network.
final class TestLedger: CallerLedger {
    struct State {
        var consumed = NanoUSD.zero
        var open: [Int64: NanoUSD] = [:]
        var finals: [ChildKey: NanoUSD] = [:]
        var audiences: [ChildKey: Incarnation] = [:]
        var lost: [ChildKey] = []
        var children: Int64 = 0
        var requests: Int64 = 0
        var warnings: [BudgetWarning] = []
        /// Of finals, as they were told.
        var tokens: [Int64?] = []
    }

    /// More of one call is refused.
    let tokensMax: Int64
    let limit: NanoUSD
    let requestsMax: Int64?
    let state = Mutex(State())
    let observed = ObservedRefusals()

    init(
        limit: NanoUSD = NanoUSD(100_000_000_000), requestsMax: Int64? = nil,
        tokensMax: Int64 = .max
    ) {
        self.tokensMax = tokensMax
        self.limit = limit
        self.requestsMax = requestsMax
    }

    func takeRequest() async throws(LedgerRefusal) {
        let taken = state.withLock { state in
            guard state.requests < requestsMax ?? .max else { return false }
            state.requests += 1
            return true
        }
        guard taken else {
            let account = AccountKey(
                unit: .requests, scope: .user, period: Period(.day, at: TestClock.unix), id: "alice"
            )
            throw LedgerRefusal(
                reason: .quotaExhausted, account: account, resetsAt: account.period.end)
        }
    }

    func delegate(
        _ bound: CallBound, to audience: Incarnation
    ) async throws(LedgerRefusal) -> PaidCall {
        let amount = bound.amount
        if bound.tokens > tokensMax {
            let account = AccountKey(
                unit: .tokens, scope: .user, period: Period(.minute, at: TestClock.unix),
                id: "alice")
            throw LedgerRefusal(
                reason: .rateLimited, account: account, resetsAt: account.period.end,
                limit: NanoUSD(tokensMax))
        }
        let key = state.withLock { state -> ChildKey? in
            let held = state.open.values.reduce(NanoUSD.zero, +)
            guard state.consumed + held + amount <= limit else { return nil }
            state.children += 1
            state.open[state.children] = amount
            let key = ChildKey(
                lease: LeaseID(incarnation: Incarnation(5), number: 1), child: state.children)
            state.audiences[key] = audience
            return key
        }
        guard let key else {
            let account = AccountKey(
                unit: .usd, scope: .user, period: Period(.month, at: TestClock.unix), id: "alice")
            throw LedgerRefusal(
                reason: .budgetExhausted, account: account, resetsAt: account.period.end)
        }
        return PaidCall(key: key)
    }

    func callFinal(_ call: PaidCall, consumed: NanoUSD, tokens: Int64?) {
        state.withLock { state in
            guard state.open.removeValue(forKey: call.key.child) != nil else { return }
            state.finals[call.key] = consumed
            state.tokens.append(tokens)
            state.consumed += consumed
        }
    }

    func callLost(_ call: PaidCall) { state.withLock { $0.lost.append(call.key) } }

    var balance: Balance? {
        let consumed = state.withLock { $0.consumed }
        var balance = Balance(
            limit: limit, remaining: limit - consumed,
            resetsAt: Period(.month, at: TestClock.unix).end)
        balance.warnings = state.withLock { $0.warnings }
        if let requestsMax {
            balance.requestsLimit = requestsMax
            balance.requestsRemaining = requestsMax - state.withLock { $0.requests }
            balance.requestsResetAt = Period(.day, at: TestClock.unix).end
        }
        return balance
    }
}

/// Time that passes only when told to; a deadline comes when the test says so.
final class TestClock: GatewayClock {
    static let unix = UnixTime(seconds: 1_795_357_200)

    private let passed = Mutex(UInt64(1_000_000_000))
    private let gate = AsyncStream.makeStream(of: Void.self)

    var nowNanoseconds: UInt64 { passed.withLock { $0 } }
    var now: UnixTime { Self.unix }

    func advance(nanoseconds: UInt64) { passed.withLock { $0 += nanoseconds } }

    func passDeadline() {
        advance(nanoseconds: 3_600_000_000_000)
        gate.continuation.yield()
    }

    // tidy: a method of the clock under test
    func sleep(untilNanoseconds: UInt64) async throws {
        // Ends with the first element, or when the task is cancelled.
        for await _ in gate.stream { return }
        throw CancellationError()
    }
}

/// Sidecars in memory: opens each delegation as a sidecar does, asks the test what to answer and
/// seals the settlement.
struct TestTransport: AgentTransport {
    enum Reaction: Sendable {
        case answer(String, cost: Int64)
        /// The agent made calls of its own, which cost something, too.
        case called(String, cost: Int64, calls: Int64)
        case pieces([String], cost: Int64)
        /// A stream of events in these pieces.
        case events([String], cost: Int64)
        /// Answered, and refused had the policy not only observed.
        case observed(String, Reason, cost: Int64)
        /// These, and then the connection is cut.
        case broken([String])
        case status(Int, cost: Int64)
        case refused(Reason)
        case unsettled(String)
        case forged(String)
        case notSent
        case lost
        /// Until cancelled.
        case hang
    }

    let react: @Sendable (AgentCall, Delegation) async -> Reaction

    func open(
        _ call: AgentCall, to endpoint: AgentEndpoint
    ) async throws(AgentCallError) -> any AgentAnswerStream {
        let sealed = call.headers.first { $0.name == Delegation.headerName }?.value ?? ""
        guard let payload = Sealed.open(sealed, key: endpoint.hopKey),
            let delegation = Delegation(payload: payload)
        else { throw AgentCallError(reason: .forbidden, wasSent: true) }
        switch await react(call, delegation) {
        case .answer(let text, let cost):
            return answer(200, [text], delegation, NanoUSD(cost), endpoint.hopKey)
        case .called(let text, let cost, let calls):
            return answer(
                200, [text], delegation, NanoUSD(cost), endpoint.hopKey, calls: NanoUSD(calls))
        case .pieces(let pieces, let cost):
            return answer(200, pieces, delegation, NanoUSD(cost), endpoint.hopKey)
        case .events(let pieces, let cost):
            return answer(
                200, pieces, delegation, NanoUSD(cost), endpoint.hopKey,
                contentType: "text/event-stream; charset=utf-8")
        case .observed(let text, let reason, let cost):
            return answer(
                200, [text], delegation, NanoUSD(cost), endpoint.hopKey, reason: reason,
                isRefusal: false)
        case .broken(let pieces):
            return TestAnswer(
                status: 200, settlement: nil, pieces: pieces, contentType: "text/event-stream",
                isBroken: true)
        case .status(let status, let cost):
            return answer(status, ["{}"], delegation, NanoUSD(cost), endpoint.hopKey)
        case .refused(let reason):
            return answer(
                reason.status, ["{}"], delegation, .zero, endpoint.hopKey, reason: reason)
        case .unsettled(let text):
            return TestAnswer(status: 200, settlement: nil, pieces: [text])
        case .forged(let text):
            return answer(200, [text], delegation, .zero, [UInt8](repeating: 1, count: 32))
        case .notSent: throw AgentCallError(reason: .upstreamError, wasSent: false)
        case .lost: throw AgentCallError(reason: .upstreamError, wasSent: true)
        case .hang:
            while !Task.isCancelled { await Task.yield() }
            throw AgentCallError(reason: .cancelled, wasSent: true)
        }
    }

    private func answer(
        _ status: Int, _ pieces: [String], _ delegation: Delegation, _ cost: NanoUSD,
        _ key: [UInt8], reason: Reason = .admitted, isRefusal: Bool? = nil,
        contentType: String = "application/json", calls: NanoUSD = .zero
    ) -> TestAnswer {
        let settlement = Settlement(
            keyID: delegation.keyID, key: delegation.key, consumed: cost, isFinal: true,
            source: cost == .zero ? .none : .reported, reason: reason, model: "",
            outbound: calls)
        let sealed = Sealed.seal(settlement.payload, key: key)
        return TestAnswer(
            status: status, settlement: sealed, pieces: pieces, contentType: contentType,
            isRefusal: isRefusal ?? (reason != .admitted))
    }

    static let mood =
        #"[[{"label": "positive", "score": 0.9}, {"label": "neutral", "score": 0.1}]]"#
    static let prose = #"{"choices": [{"message": {"content": "Up."}, "finish_reason": "stop"}]}"#

    /// Every agent answers well.
    static let healthy = TestTransport { call, _ in
        switch call.agent {
        case "mood": .answer(mood, cost: 120_000)
        case "risk": .answer(#"{"level": "low"}"#, cost: 10_000_000)
        default: .answer(prose, cost: 500_000)
        }
    }
}

/// An answer that comes in the given pieces, settled in its trailer, or in a field where the
/// sidecar refused.
final class TestAnswer: AgentAnswerStream {
    let status: Int
    private let settlement: String?
    private let contentType: String
    private let isRefusal: Bool
    private let isBroken: Bool
    private let rest: Mutex<[String]>

    init(
        status: Int, settlement: String?, pieces: [String],
        contentType: String = "application/json", isRefusal: Bool = false, isBroken: Bool = false
    ) {
        self.status = status
        self.contentType = contentType
        self.settlement = settlement
        self.isRefusal = isRefusal
        self.isBroken = isBroken
        rest = Mutex(pieces)
    }

    func field(_ name: String) -> String? {
        switch name {
        case Settlement.headerName: isRefusal ? settlement : nil
        case "content-type": contentType
        default: nil
        }
    }

    func next() async throws(AgentCallError) -> [UInt8]? {
        if Task.isCancelled { throw AgentCallError(reason: .cancelled, wasSent: true) }
        let piece = rest.withLock { $0.isEmpty ? nil : $0.removeFirst() }
        if piece == nil, isBroken { throw AgentCallError(reason: .upstreamError, wasSent: true) }
        return piece.map { Array($0.utf8) }
    }

    func trailer(_ name: String) -> String? {
        let isRead = rest.withLock { $0.isEmpty }
        return name == Settlement.headerName && isRead && !isRefusal && !isBroken
            ? settlement : nil
    }

    func cancel() {}
}
