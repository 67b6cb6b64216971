import WeirCore
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

/// What the end of an exchange means: for the breaker, for the money, for the record. Pure.
enum AttemptOutcome {
    /// What the endpoint's breaker learns from it.
    static func breaker(
        _ outcome: ExchangeOutcome, _ context: AttemptContext
    ) -> CircuitBreaker.Outcome {
        switch outcome.kind {
        case .completed: return answered(outcome, context)
        case .clientGone:
            return outcome.responseIsWhole ? answered(outcome, context) : .unknown
        case .upstreamFailed:
            // A response that was cut by the deadline has failed without a word of the upstream's.
            return outcome.upstreamFailure.map(failed) ?? deadlinePassed(outcome, context)
        // A refusal of ours says nothing of the endpoint, but for a deadline that passed there.
        case .refused: return deadlinePassed(outcome, context)
        case .answered, .cutShort: return .unknown
        }
    }

    private static func deadlinePassed(
        _ outcome: ExchangeOutcome, _ context: AttemptContext
    ) -> CircuitBreaker.Outcome {
        guard outcome.reason == .deadline, outcome.upstreamTouched else { return .unknown }
        return context.hasCallersDeadline
            ? .callerTimedOut : .failure(.timeout, retryAfterNanoseconds: nil)
    }

    private static func answered(
        _ outcome: ExchangeOutcome, _ context: AttemptContext
    ) -> CircuitBreaker.Outcome {
        if let status = outcome.grpcStatus { return answered(status, context) }
        switch context.status {
        case 429:
            return .failure(.rateLimited, retryAfterNanoseconds: context.retryAfterNanoseconds)
        case 500...599:
            return .failure(.serverError, retryAfterNanoseconds: context.retryAfterNanoseconds)
        default:
            // An error in mid-stream, behind a head that said 200.
            return context.isStream && context.meter.reportsError
                ? .failure(.midStreamDeath, retryAfterNanoseconds: nil) : .success
        }
    }

    private static func answered(
        _ status: GRPCStatus, _ context: AttemptContext
    ) -> CircuitBreaker.Outcome {
        switch status {
        case .resourceExhausted:
            .failure(.rateLimited, retryAfterNanoseconds: context.retryAfterNanoseconds)
        case .deadlineExceeded:
            context.hasCallersDeadline
                ? .callerTimedOut : .failure(.timeout, retryAfterNanoseconds: nil)
        default:
            status.isFailure
                ? .failure(.serverError, retryAfterNanoseconds: context.retryAfterNanoseconds)
                : .success
        }
    }

    private static func failed(_ failure: UpstreamFailure) -> CircuitBreaker.Outcome {
        let kind: CircuitBreaker.Failure
        switch failure {
        case .connectFailed, .handshakeFailed, .connectTimeout: kind = .connect
        case .closedBeforeAnswer, .refused, .reset: kind = .closedBeforeAnswer
        case .protocolError: kind = .protocolError
        case .firstByteTimeout: kind = .firstByteStall
        case .stalled: kind = .timeout
        case .diedMidStream: kind = .midStreamDeath
        case .noMemory: return .unknown
        }
        return .failure(kind, retryAfterNanoseconds: nil)
    }

    /// Nothing is due where no byte can have reached the agent, or where its policy says that what
    /// it refuses is free.
    static func cost(_ outcome: ExchangeOutcome, _ context: AttemptContext) -> AttemptCost {
        guard outcome.upstreamTouched, let terms = context.terms, !isFreeRefusal(outcome, context)
        else {
            return AttemptCost(amount: .zero, source: .none, tokens: .init(), isOverrun: false)
        }
        if let known = terms.fixedCost { return known }
        let nanoseconds = outcome.endedNanoseconds &- outcome.startedNanoseconds
        if terms.isFixed { return terms.bound.fixedCost(nanoseconds: nanoseconds) }
        return terms.bound.cost(
            of: context.meter, isWhole: outcome.responseIsWhole, nanoseconds: nanoseconds,
            whenMissing: context.snapshot.agent.whenUsageIsMissing)
    }

    /// An answer that reports usage was worked for, whatever its status says; so was a call of gRPC
    /// whose agent had sent something before. A `grpc-status` that is not the agent's is none.
    private static func isFreeRefusal(
        _ outcome: ExchangeOutcome, _ context: AttemptContext
    ) -> Bool {
        guard context.snapshot.agent.whenAgentRefuses == .free, context.meter.reported == nil else {
            return false
        }
        // Other statuses than 200 are not of gRPC, whatever they are translated to.
        guard context.status == 200 else { return AgentPolicy.isRefusal(status: context.status) }
        return outcome.grpcStatus?.isRefusal == true && outcome.responseIsWhole
            && outcome.responseBytes == 0
    }

    /// What refused it, or what failed.
    static func reason(_ outcome: ExchangeOutcome, _ context: AttemptContext) -> Reason {
        guard outcome.reason == .admitted else { return outcome.reason }
        if let status = outcome.grpcStatus {
            return status.isFailure || status == .resourceExhausted ? .upstreamError : .admitted
        }
        return context.status == 429 || context.status >= 500 ? .upstreamError : .admitted
    }

    /// Everything but the identities and who pays.
    static func record(
        _ outcome: ExchangeOutcome, _ context: AttemptContext, _ cost: AttemptCost
    ) -> AttemptRecord {
        var record = AttemptRecord()
        record.startedAt = context.startedAt
        record.cost = cost.amount
        record.source = cost.source
        record.tokens = cost.tokens
        record.latencyMicroseconds = microseconds(
            outcome.startedNanoseconds, outcome.endedNanoseconds)
        if outcome.firstByteNanoseconds > 0 {
            record.firstByteMicroseconds = microseconds(
                outcome.startedNanoseconds, outcome.firstByteNanoseconds)
        }
        record.status = UInt16(clamping: context.status)
        record.reason = reason(outcome, context)
        record.policyNumber = context.snapshot.version.number
        record.priceVersion = context.terms?.bound.price.version ?? 0
        if cost.isOverrun { record.flags.insert(.overrun) }
        if context.isStream { record.flags.insert(.streamed) }
        if record.reason == .admitted, let observed = context.observed {
            record.reason = observed
            record.flags.insert(.observed)
        }
        return record
    }

    private static func microseconds(_ start: UInt64, _ end: UInt64) -> UInt32 {
        UInt32(clamping: (end - min(start, end)) / 1_000)
    }
}
