import WeirCore
import WeirLedger
import WeirMeshProtocol

/// The series that one worker counts for one agent, resolved once for each tier and model.
final class AgentSeries {
    let metrics: SidecarMetrics
    let shard: MetricsShard
    private let agent: String
    private var decisions: ContiguousArray<Metrics.Series?>
    private let duration: Metrics.Series
    private let firstByte: Metrics.Series
    private let retries: Metrics.Series
    private var grpc: GRPCSeries
    private let latencyBounds = SidecarMetrics.latencyBounds
    private var attempts: [AttemptSeries.Key: AttemptSeries] = [:]
    /// Most requests of a worker are for one model and from one tier.
    private var last: AttemptSeries?
    /// Tiers and models come from the policy; this bounds what a caller with odd ones could make of
    /// it. Beyond it every attempt asks the registry, which has its own bound.
    private static let attemptsMax = 1_024

    init(_ metrics: SidecarMetrics, shard: MetricsShard, agent: String) {
        self.metrics = metrics
        self.shard = shard
        self.agent = agent
        decisions = ContiguousArray(repeating: nil, count: 256)
        duration = metrics.registry.series(metrics.upstreamDuration, [agent])
        firstByte = metrics.registry.series(metrics.firstByte, [agent])
        retries = metrics.registry.series(metrics.retries, [agent])
        grpc = GRPCSeries(metrics, shard: shard, agent: agent)
    }

    func called(_ path: UnsafeRawBufferPointer, _ status: GRPCStatus, isServed: Bool) {
        grpc.ended(path, status, isServed: isServed)
    }

    func retried() { shard.add(retries) }

    func decided(_ reason: Reason) {
        let index = Int(reason.rawValue)
        if let known = decisions[index] { return shard.add(known) }
        let series = metrics.registry.series(metrics.requests, [reason.name])
        decisions[index] = series
        shard.add(series)
    }

    func observed(_ reason: Reason, tier: String) {
        shard.add(metrics.registry.series(metrics.observed, [agent, tier, reason.name]))
    }

    func attempted(
        _ cost: AttemptCost, model: String, tier: String, outcome: Reason,
        nanoseconds: UInt64, firstByteNanoseconds: UInt64
    ) {
        let attempts = find(model, tier)
        shard.add(attempts.outcome(outcome))
        if cost.amount.rawValue > 0 {
            shard.add(attempts.cost(cost.source), UInt64(cost.amount.rawValue))
        }
        if cost.isOverrun {
            shard.add(metrics.registry.series(metrics.overruns, [agent, model]))
        }
        let tokens = cost.tokens
        if tokens != AttemptRecord.Tokens() {
            count(tokens.input, .input, attempts)
            count(tokens.cachedInput, .cachedInput, attempts)
            count(tokens.output, .output, attempts)
            count(tokens.reasoning, .reasoning, attempts)
        }
        shard.observe(duration, bounds: latencyBounds, nanoseconds: nanoseconds)
        if firstByteNanoseconds > 0 {
            shard.observe(firstByte, bounds: latencyBounds, nanoseconds: firstByteNanoseconds)
        }
    }

    private func count(
        _ tokens: UInt32, _ kind: AttemptSeries.TokenKind, _ attempts: AttemptSeries
    ) {
        if tokens > 0 { shard.add(attempts.tokens(kind), UInt64(tokens)) }
    }

    private func find(_ model: String, _ tier: String) -> AttemptSeries {
        if let last, last.key.model == model, last.key.tier == tier { return last }
        let key = AttemptSeries.Key(model: model, tier: tier)
        let found = attempts[key] ?? AttemptSeries(key, agent: agent, metrics)
        if attempts.count < Self.attemptsMax { attempts[key] = found }
        last = found
        return found
    }
}

/// The series of attempts at one model for one tier: each is resolved when it is first counted, for
/// one that is never counted is never shown.
private final class AttemptSeries {
    struct Key: Hashable {
        let model: String
        let tier: String
    }

    enum TokenKind: Int, CaseIterable {
        case input, cachedInput, output, reasoning

        var name: String {
            switch self {
            case .input: "input"
            case .cachedInput: "cached_input"
            case .output: "output"
            case .reasoning: "reasoning"
            }
        }
    }

    let key: Key
    private let agent: String
    private let metrics: SidecarMetrics
    private var outcomes: ContiguousArray<Metrics.Series?>
    private var costs: ContiguousArray<Metrics.Series?>
    private var tokens: ContiguousArray<Metrics.Series?>

    init(_ key: Key, agent: String, _ metrics: SidecarMetrics) {
        self.key = key
        self.agent = agent
        self.metrics = metrics
        outcomes = ContiguousArray(repeating: nil, count: Self.outcomeCount)
        costs = ContiguousArray(repeating: nil, count: CostSource.allCases.count)
        tokens = ContiguousArray(repeating: nil, count: TokenKind.allCases.count)
    }

    private static let outcomeCount = Int(Reason.allCases.map(\.rawValue).max() ?? 0) + 1

    func outcome(_ reason: Reason) -> Metrics.Series {
        if let known = outcomes[Int(reason.rawValue)] { return known }
        let series = metrics.registry.series(
            metrics.invocations, [agent, key.model, key.tier, reason.name])
        outcomes[Int(reason.rawValue)] = series
        return series
    }

    func cost(_ source: CostSource) -> Metrics.Series {
        if let known = costs[Int(source.rawValue)] { return known }
        let series = metrics.registry.series(
            metrics.cost, [agent, key.model, key.tier, source.name])
        costs[Int(source.rawValue)] = series
        return series
    }

    func tokens(_ kind: TokenKind) -> Metrics.Series {
        if let known = tokens[kind.rawValue] { return known }
        let series = metrics.registry.series(metrics.tokens, [agent, key.model, kind.name])
        tokens[kind.rawValue] = series
        return series
    }
}
