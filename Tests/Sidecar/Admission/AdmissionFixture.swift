import Glibc
import Synchronization
import WeirCore
import WeirCrypto
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

@testable import SidecarCore

/// An agent's sidecar with a real ledger and a real data plane, in front of a test's agent.
final class AdmissionFixture {
    static let secret = [UInt8](repeating: 7, count: 32)
    static let life = Incarnation(12)

    let ledger: SidecarLedger
    let metrics = SidecarMetrics(Metrics())
    let runtime: AgentRuntime
    let agent: AgentPolicy
    let proxy: ProxyFixture
    /// A final came up that no response carries.
    let hasUnsaidFinal = Signal()
    private let directory: String
    private let interceptor: AdmissionInterceptor

    /// `allowance` makes it standalone.
    init(
        _ upstreams: SocketAddress..., allowance: NanoUSD? = nil, timeouts: Timeouts = Timeouts(),
        credential: String? = nil, agent: AgentPolicy = AdmissionFixture.openAI(),
        price: ModelPrice = AdmissionFixture.price(), life: Incarnation = AdmissionFixture.life,
        wire: UpstreamProtocol = .http1
    ) throws {
        self.agent = agent
        directory = "/tmp/weir-admission-\(getpid())-\(UInt32.random(in: 0 ... .max))"
        mkdir(directory, 0o700)
        var configuration = SidecarLedger.Configuration(directory: directory)
        configuration.isStandalone = allowance != nil
        ledger = try SidecarLedger(configuration)
        var terms: AccountTerms?
        if let allowance {
            try ledger.beginStandalone()
            let account = AccountTerms(
                key: AccountKey(
                    unit: .usd, scope: .mesh,
                    period: Period(.forever, at: UnixTime(seconds: 0)), id: "local"),
                limit: allowance, maxLease: allowance, policyNumber: 1)
            ledger.grantLocally(account, amount: allowance)
            terms = account
        } else {
            try ledger.begin(life, secret: Self.secret, isAdopted: false)
        }
        let runtime = AgentRuntime(agent, endpoints: upstreams)
        self.runtime = runtime
        let attempts = AttemptLedger(ledger, allowance: terms) { [hasUnsaidFinal] in
            hasUnsaidFinal.set()
        }
        let snapshot = Self.snapshot(
            agent, price, isStandalone: allowance != nil, credential: credential, life: life)
        let metrics = self.metrics
        let made = Made()
        proxy = try ProxyFixture(upstreams, timeouts: timeouts, wire: wire) { target, _ in
            let interceptor = AdmissionInterceptor(
                worker: target.worker, target: target, snapshot: snapshot, runtime: runtime,
                ledger: attempts, metrics: metrics)
            made.interceptor = interceptor
            return interceptor
        }
        guard let interceptor = made.interceptor else { preconditionFailure("no worker") }
        self.interceptor = interceptor
    }

    private final class Made { var interceptor: AdmissionInterceptor? }

    deinit {
        proxy.stop()
        guard let folder = opendir(directory) else { return }
        while let entry = readdir(folder) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            unlink(directory + "/" + name)
        }
        closedir(folder)
        rmdir(directory)
    }

    static func openAI(_ change: (inout AgentPolicy) -> Void = { _ in }) -> AgentPolicy {
        var agent = AgentPolicy(
            name: "llama", wireProtocol: .openai, path: "/v1/chat/completions",
            models: [.init(id: "llama-2", aliases: ["llama"])])
        agent.outputTokensMax = 50
        agent.breaker.consecutiveFailures = 100
        change(&agent)
        return agent
    }

    /// One token costs one n$ in and ten out.
    static func price(_ change: (inout ModelPrice) -> Void = { _ in }) -> ModelPrice {
        var price = ModelPrice(model: "llama-2")
        price.tokens.input = NanoUSD(1_000_000)
        price.tokens.output = NanoUSD(10_000_000)
        change(&price)
        return price
    }

    static func snapshot(
        _ agent: AgentPolicy, _ price: ModelPrice, isStandalone: Bool, credential: String?,
        number: Int64 = 7, life: Incarnation = AdmissionFixture.life
    ) -> AdmissionSnapshot {
        var policy = Policy()
        policy.prices[price.model] = price
        policy.tiers["free"] = TierPolicy(
            name: "free", monthlyBudget: NanoUSD(1), agents: [agent.name])
        var counted = TierPolicy(
            name: "counted", monthlyBudget: NanoUSD(1), agents: [agent.name])
        counted.tokensPerMinute = 1_000
        policy.tiers["counted"] = counted
        policy.tiers["none"] = TierPolicy(name: "none", monthlyBudget: NanoUSD(1), agents: [])
        let keys = [HopKey(id: 3, secret: Base64URL.encode(secret))]
        return AdmissionSnapshot(
            agent, policy: policy, version: PolicyVersion(epoch: 1, number: number, hash: "ab"),
            funding: isStandalone ? .ownAllowance : .delegations(keys: keys, incarnation: life),
            credential: credential)
    }

    /// A new policy, in force when this returns.
    func change(_ agent: AgentPolicy, _ price: ModelPrice, number: Int64) {
        let snapshot = Self.snapshot(
            agent, price, isStandalone: false, credential: nil, number: number)
        runtime.change(agent, nowNanoseconds: 0)
        proxy.onLoop { _ in self.interceptor.apply(snapshot) }
    }

    /// The header field of a delegation, child after child.
    func delegation(
        child: Int64, amount: Int64 = 10_000, tier: String = "free", key: [UInt8] = secret,
        path: String = "/v1/chat/completions", milliseconds: UInt32 = 5_000,
        audience: Incarnation = life, observed: Reason = .admitted
    ) -> String {
        let delegation = Delegation(
            keyID: 3, issuer: Incarnation(4), audience: audience,
            key: ChildKey(lease: LeaseID(incarnation: Incarnation(4), number: 9), child: child),
            amount: NanoUSD(amount), run: Identifier(high: 1, low: 2),
            request: Identifier(high: 3, low: 4), subject: "alice", tenant: "acme", tier: tier,
            requestType: "news_analysis", agent: agent.name, method: "POST", path: path,
            remainingMilliseconds: milliseconds, observed: observed)
        return "weir-delegation: \(Sealed.seal(delegation.payload, key: key))\r\n"
    }

    /// What came back: from the trailer, or from the field of a refusal.
    static func settlement(_ response: TestMessage) -> Settlement? {
        let trailer = response.trailers.first { $0.hasPrefix("weir-settlement: ") }
            .map { String($0.dropFirst("weir-settlement: ".utf8.count)) }
        guard let text = trailer ?? response["weir-settlement"],
            let payload = Sealed.open(text, key: secret)
        else { return nil }
        return Settlement(payload: payload)
    }

    var records: [AttemptRecord] {
        let life = ledger.incarnation ?? Self.life
        return ledger.recordBlocks(of: life, after: 0).flatMap(\.records)
    }

    func waitForRecords(_ count: Int) -> [AttemptRecord] {
        _ = eventually { self.records.count >= count }
        return records
    }
}

let chat = #"{"model":"llama","messages":[{"role":"user","content":"Hello"}]}"#
let chatAnswer = #"{"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":30}}"#

func chatRequest(_ fields: String, _ body: String = chat) -> String {
    post("/v1/chat/completions", body, "Content-Type: application/json\r\n" + fields)
}
