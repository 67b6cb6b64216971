import Synchronization
import WeirCore
import WeirCrypto
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

/// What the gateway knows of the control plane, for `/health`.
package struct ControlPlaneView: Hashable, Sendable {
    package var isReachable: Bool
    /// Since it was last heard.
    package var silentMilliseconds: Int64

    package init(isReachable: Bool, silentMilliseconds: Int64) {
        self.isReachable = isReachable
        self.silentMilliseconds = silentMilliseconds
    }
}

/// What the control plane says about the bearer of a token.
package enum CallerBinding: Sendable {
    case bound(SubjectBinding)
    case refused(Reason, String)
    /// It is away, and nothing is remembered of this caller.
    case unavailable
}

/// What the gateway needs of the rest of its process.
package struct GatewayDependencies: Sendable {
    /// `nil` before the first policy.
    package var snapshot: @Sendable () -> GatewaySnapshot?
    package var bind: @Sendable (SubjectRequest) async -> CallerBinding
    package var ledger:
        @Sendable (SubjectBinding, GatewaySnapshot, any GatewayClock) -> any CallerLedger
    package var controlPlane: @Sendable () -> ControlPlaneView
    package var metrics: any GatewayMetrics

    package init(
        snapshot: @escaping @Sendable () -> GatewaySnapshot?,
        bind: @escaping @Sendable (SubjectRequest) async -> CallerBinding,
        ledger:
            @escaping @Sendable (SubjectBinding, GatewaySnapshot, any GatewayClock)
            -> any CallerLedger,
        controlPlane: @escaping @Sendable () -> ControlPlaneView, metrics: any GatewayMetrics
    ) {
        self.snapshot = snapshot
        self.bind = bind
        self.ledger = ledger
        self.controlPlane = controlPlane
        self.metrics = metrics
    }
}

/// What belongs to the loop that a request came in on.
package struct GatewayWorker: Sendable {
    package var transport: any AgentTransport
    package var clock: any GatewayClock

    package init(transport: any AgentTransport, clock: any GatewayClock) {
        self.transport = transport
        self.clock = clock
    }
}

package protocol GatewayMetrics: Sendable {
    /// `orchestrator_requests_total` and `orchestrator_request_duration_seconds`. The names come
    /// from the policy, never from the wire, so the number of series is bounded.
    func analysisEnded(type: String, tier: String, status: String, nanoseconds: UInt64)
}

/// The gateway's own endpoints. One for the process; every loop calls it.
package final class GatewayService: Sendable {
    private let configuration: GatewayConfiguration
    private let dependencies: GatewayDependencies
    private let analyses = Mutex(0)
    private let perUser = Mutex<[String: Int]>([:])
    private let rates = UserRates()

    package init(configuration: GatewayConfiguration, dependencies: GatewayDependencies) {
        self.configuration = configuration
        self.dependencies = dependencies
    }

    private static let routes: [String: [String]] = [
        "/analyze": ["POST"], "/health": ["GET", "HEAD"],
    ]

    package var analysesInHand: Int { analyses.withLock { $0 } }

    package static func isRoute(_ path: String) -> Bool { routes[path] != nil }

    package func respond(
        to request: GatewayRequest, on worker: GatewayWorker
    ) async -> GatewayAnswer {
        var answer = await route(request, worker)
        if let version = dependencies.snapshot()?.version {
            answer.fields.append(GatewayField("weir-policy-version", String(version.number)))
        }
        answer.fields += configuration.origins.fields(for: request.field("origin"))
        if request.method == "HEAD" { answer.body = [] }
        return answer
    }

    private func route(
        _ request: GatewayRequest, _ worker: GatewayWorker
    ) async -> GatewayAnswer {
        guard let methods = Self.routes[request.path] else {
            return .problem(
                GatewayRefusal(.unknownRoute, "There is nothing at this path."),
                requestID: request.id, [])
        }
        if request.method == "OPTIONS" {
            let allow = GatewayField("allow", (methods + ["OPTIONS"]).joined(separator: ", "))
            let fields = configuration.origins.preflightFields(
                for: request.field("origin"), methods: methods)
            return GatewayAnswer(status: 204, fields: [allow] + fields, body: [])
        }
        guard methods.contains(request.method) else {
            let allowed = methods.joined(separator: ", ")
            return .problem(
                GatewayRefusal(.method, "The methods here are \(allowed)."), requestID: request.id,
                [GatewayField("allow", allowed)])
        }
        switch request.path {
        case "/health": return health()
        default: return await analyze(request, worker)
        }
    }

    // MARK: POST /analyze

    private func analyze(
        _ request: GatewayRequest, _ worker: GatewayWorker
    ) async -> GatewayAnswer {
        let began = worker.clock.nowNanoseconds
        var labels = AnalysisLabels()
        let answer: GatewayAnswer
        do throws(GatewayRefusal) {
            try enter()
            defer { analyses.withLock { $0 -= 1 } }
            answer = try await admitted(request, worker, &labels)
        } catch {
            labels.status = error.reason.name
            let fields =
                error.reason.status == 401 ? [GatewayField("www-authenticate", "Bearer")] : []
            answer = .problem(error, requestID: request.id, fields)
        }
        dependencies.metrics.analysisEnded(
            type: labels.type, tier: labels.tier, status: labels.status,
            nanoseconds: worker.clock.nowNanoseconds - began)
        return answer
    }

    /// Names from the policy, or a dash: what is not known yet when a request is refused.
    private struct AnalysisLabels {
        var type = "-"
        var tier = "-"
        var status = ""
    }

    private func admitted(
        _ request: GatewayRequest, _ worker: GatewayWorker, _ labels: inout AnalysisLabels
    ) async throws(GatewayRefusal) -> GatewayAnswer {
        guard let snapshot = dependencies.snapshot() else {
            throw GatewayRefusal(
                .controlPlaneLost, "This gateway has no policy yet.", retryAfterSeconds: 1)
        }
        try checkMediaType(request)
        let claims = try authenticate(request, now: worker.clock.now)
        let binding = try await bind(claims)
        guard let tier = snapshot.policy.tiers[binding.tier] else {
            throw GatewayRefusal(.forbidden, "The policy has no tier \(binding.tier).")
        }
        labels.tier = tier.name
        let analysis = try AnalyzeRequest.read(
            request.body, policy: snapshot.policy, tier: tier)
        labels.type = analysis.type.name
        let caller = Caller(
            user: binding.user, tenant: binding.tenant, tier: tier, roles: binding.roles)
        try rates.take(caller, nowNanoseconds: worker.clock.nowNanoseconds)
        try enterUser(caller)
        defer { leaveUser(caller) }
        let ledger = dependencies.ledger(binding, snapshot, worker.clock)
        try await takeRequest(ledger, now: worker.clock.now)
        let report = await AnalysisRun(
            context: makeContext(request, worker, snapshot, caller, analysis, ledger)
        ).run()
        let answer = AnalysisAnswer(
            request: analysis, requestID: request.id, report: report, balance: ledger.balance,
            policyNumber: snapshot.version.number, now: worker.clock.now)
        labels.status = answer.outcome
        return answer.answer()
    }

    private func makeContext(
        _ request: GatewayRequest, _ worker: GatewayWorker, _ snapshot: GatewaySnapshot,
        _ caller: Caller, _ analysis: AnalyzeRequest, _ ledger: any CallerLedger
    ) -> RunContext {
        let now = worker.clock.nowNanoseconds
        let identifier = Identifier(request.id.dropFirst(4)) ?? .random(at: worker.clock.now)
        return RunContext(
            snapshot: snapshot, caller: caller, request: analysis, requestID: identifier,
            // One request of a user is one run; what its agents spend elsewhere is charged to it.
            runID: identifier, trace: request.field("traceparent").flatMap(TraceContext.init(_:)),
            deadlineNanoseconds: now + UInt64(analysis.timeoutMilliseconds) * 1_000_000,
            ledger: ledger, transport: worker.transport, clock: worker.clock,
            budget: RunBudget(limit: analysis.maxCost))
    }

    private func checkMediaType(_ request: GatewayRequest) throws(GatewayRefusal) {
        let type = request.field("content-type")?.split(separator: ";").first
        let name = type.map { String($0.filter { $0 != " " && $0 != "\t" }).lowercased() }
        guard name == "application/json" else {
            throw GatewayRefusal(.mediaType, "The body must be application/json.")
        }
    }

    private func authenticate(
        _ request: GatewayRequest, now: UnixTime
    ) throws(GatewayRefusal) -> TokenClaims {
        guard let value = request.field("authorization") else {
            throw GatewayRefusal(.unauthenticated, "A bearer token is required.")
        }
        let parts = value.split(separator: " ", omittingEmptySubsequences: false)
        guard parts.count == 2, parts[0].lowercased() == "bearer" else {
            throw GatewayRefusal(.unauthenticated, "A bearer token is required.")
        }
        do throws(TokenRefusal) {
            return try configuration.verifier.verify(String(parts[1]), now: now)
        } catch {
            throw GatewayRefusal(error.reason, error.detail)
        }
    }

    private func bind(_ claims: TokenClaims) async throws(GatewayRefusal) -> SubjectBinding {
        let request = SubjectRequest(
            claims: .init(
                subject: claims.subject, tier: claims.tier, tenant: claims.tenant,
                roles: claims.roles), apiKeyHash: nil)
        switch await dependencies.bind(request) {
        case .bound(let binding): return binding
        case .refused(let reason, let detail): throw GatewayRefusal(reason, detail)
        case .unavailable:
            throw GatewayRefusal(
                .controlPlaneLost, "The caller's account cannot be looked up now.",
                retryAfterSeconds: 1)
        }
    }

    private func takeRequest(
        _ ledger: any CallerLedger, now: UnixTime
    ) async throws(GatewayRefusal) {
        do throws(LedgerRefusal) {
            try await ledger.takeRequest()
        } catch {
            throw GatewayRefusal(error, now: now)
        }
    }

    // MARK: Concurrency

    private func enter() throws(GatewayRefusal) {
        let max = configuration.analysesMax
        let entered = analyses.withLock { count in
            guard count < max else { return false }
            count += 1
            return true
        }
        guard entered else {
            throw GatewayRefusal(
                .overloaded, "This gateway has as many analyses in hand as it takes.",
                retryAfterSeconds: 1)
        }
    }

    private func enterUser(_ caller: Caller) throws(GatewayRefusal) {
        guard let max = caller.tier.concurrentRequestsMax else { return }
        let entered = perUser.withLock { counts in
            guard counts[caller.user, default: 0] < max else { return false }
            counts[caller.user, default: 0] += 1
            return true
        }
        guard entered else {
            throw GatewayRefusal(
                .concurrency, "Tier \(caller.tier.name) allows \(max) requests at once.",
                retryAfterSeconds: 1)
        }
    }

    private func leaveUser(_ caller: Caller) {
        guard caller.tier.concurrentRequestsMax != nil else { return }
        perUser.withLock { counts in
            // A count of nobody would keep the name for ever.
            counts[caller.user] = counts[caller.user].flatMap { $0 > 1 ? $0 - 1 : nil }
        }
    }

    // MARK: GET /health

    private func health() -> GatewayAnswer {
        GatewayHealth(
            snapshot: dependencies.snapshot(), controlPlane: dependencies.controlPlane()
        ).answer()
    }
}

extension GatewayRefusal {
    /// A refusal of the ledger as the caller sees it: which account, and when there is more.
    init(_ refusal: LedgerRefusal, now: UnixTime) {
        self.init(refusal.reason, refusal.reason.title + ".")
        members["account"] = refusal.account.map { .string($0.description) }
        members["resets_at"] = refusal.resetsAt.map { .string($0.rfc3339) }
        switch refusal.reason.status {
        case 429: retryAfterSeconds = refusal.resetsAt.map { max(1, $0.seconds - now.seconds) }
        case 503: retryAfterSeconds = 1
        default: retryAfterSeconds = nil
        }
    }
}
