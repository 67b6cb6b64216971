import WeirCore
import WeirCrypto
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

/// One filled value of everything that crosses the wire; no two fields are alike, so that a layout
/// that mixes them up is found.
enum Samples {
    static let lease = LeaseID(incarnation: Incarnation(12), number: 7)
    static let child = ChildKey(lease: lease, child: 3)
    static let account = AccountKey(
        unit: .usd, scope: .user, period: Period(.month, at: UnixTime(seconds: 1_763_800_000)),
        id: "alice")

    static let delegation = Delegation(
        keyID: 0x0102_0304, issuer: Incarnation(12), audience: Incarnation(34), key: child,
        amount: NanoUSD(120_000), run: Identifier(high: 0x0123_4567_89AB_CDEF, low: 1),
        request: Identifier(high: 0xFEDC_BA98_7654_3210, low: 2), subject: "alice",
        tenant: "acme", tier: "premium", requestType: "news_analysis", agent: "finbert",
        method: "POST", path: "/v1/é", remainingMilliseconds: 29_500, depth: 2,
        observed: .rateLimited, outbound: NanoUSD(5), knownBy: .mesh)

    static let outboundCall = OutboundCall(
        keyID: 9, issuer: Incarnation(34), number: 7, amount: NanoUSD(120_000),
        run: Identifier(high: 1, low: 2), subject: "alice", tenant: "acme", tier: "premium",
        knownBy: .apiKey(hash: String(repeating: "0a", count: 32)), requestType: "news_analysis",
        agent: "finbert", path: "/agents/gpt4-turbo", depth: 1, remainingMilliseconds: 29_500)

    static let settlement = Settlement(
        keyID: 9, key: child, consumed: NanoUSD(119_999), isFinal: true, source: .reported,
        reason: .admitted, model: "gpt-4-turbo", isObserved: true, outbound: NanoUSD(6))

    static func record(sequence: UInt64 = 41, withDigests: Bool = true) -> AttemptRecord {
        var record = AttemptRecord()
        record.sequence = sequence
        record.incarnation = Incarnation(34)
        record.startedAt = UnixTime(milliseconds: 1_763_800_000_123)
        record.run = Identifier(high: 0x11, low: 0x12)
        record.request = Identifier(high: 0x13, low: 0x14)
        record.paidBy = child
        record.reserved = NanoUSD(120_000)
        record.cost = NanoUSD(119_999)
        record.tokens.input = 21
        record.tokens.cachedInput = 22
        record.tokens.cacheWrite = 23
        record.tokens.output = 24
        record.tokens.reasoning = 25
        record.latencyMicroseconds = 26
        record.firstByteMicroseconds = 27
        record.status = 200
        record.reason = .deadline
        record.source = .estimated
        (record.subject, record.tier, record.tenant) = (1, 2, 3)
        (record.agent, record.model, record.requestType) = (4, 5, 0)
        record.policyNumber = 17
        record.priceVersion = 5
        record.flags = [.streamed, .observed]
        if withDigests {
            record.digests = AttemptRecord.Digests(
                input: Digest(bytes: Crypto.sha256([1])) ?? .ofNothing,
                output: Digest(bytes: Crypto.sha256([2])) ?? .ofNothing)
        }
        return record
    }

    static func block(records: Int = 3) -> RecordBlock {
        RecordBlock(
            incarnation: Incarnation(34),
            names: [1: "alice", 2: "premium", 3: "acme", 4: "finbert", 5: "finbert-tone"],
            records: (0..<records).map {
                record(sequence: UInt64(100 + $0), withDigests: $0.isMultiple(of: 2))
            })
    }

    static let version = PolicyVersion(epoch: 1, number: 17, hash: "ab12")
    static let hopKey = HopKey(id: 3, secret: "c2VjcmV0")
    static let join = JoinResponse(
        incarnation: Incarnation(12), session: "session", journalSecret: "journal",
        hopKey: hopKey, epoch: 1, adopted: Incarnation(11), replicas: ["127.0.0.1:8081"])
    static let projection = Projection(
        version: version, documents: [["kind": "Agent", "n": 1.25e3.json]],
        endpoints: [
            Projection.Endpoint(
                agent: "finbert", incarnation: Incarnation(34), address: "127.0.0.1:9001",
                hopKey: hopKey)
        ])
    static let state = AccountState(
        account: account, limit: NanoUSD(5_000_000_000), consumed: NanoUSD(3),
        consumedByOthers: NanoUSD(2), held: NanoUSD(1), resetsAtMilliseconds: 1_764_547_200_000)
    static let counters = LeaseCounters(
        lease: lease, account: account, consumed: NanoUSD(5), released: NanoUSD(6))
    static let unknown = UnknownLease(
        lease: lease, account: account, granted: NanoUSD(8), consumed: NanoUSD(5))
    static let final = ChildFinal(key: child, consumed: NanoUSD(7))
    static let openChild = OpenChild(key: child, audience: Incarnation(34))
    static let storedAnswer = StoredAnswer(
        status: 200, contentType: "application/json", body: "{\"a\":\"é\\n\"}")
    static let preferences = {
        var preferences = Preferences()
        preferences.agentsByStep = ["explanation": "llama2-7b"]
        preferences.excludedAgents = ["gpt4-turbo"]
        preferences.maxCostPerRequest = NanoUSD(250_000_000)
        preferences.optimize = .latency
        return preferences
    }()
    static let binding = SubjectBinding(
        user: "alice", tenant: nil, tier: "premium", roles: ["user"],
        accounts: [
            SubjectBinding.Account(
                unit: .requests, scope: .user, period: .day, id: "alice", limit: NanoUSD(1_000))
        ], preferences: preferences,
        timeToLiveMilliseconds: 30_000)
}

extension Double {
    fileprivate var json: JSONValue { JSONNumber(self).map(JSONValue.number) ?? .null }
}
