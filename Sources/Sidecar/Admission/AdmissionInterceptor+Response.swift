import WeirCore
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

/// The way back: metering, and the one end of every exchange.
extension AdmissionInterceptor {
    func answerBegan(_ exchange: Exchange, status: Int) {
        guard let context = Self.context(exchange), let head = exchange.responseHead else { return }
        context.status = status
        context.retryAfterNanoseconds = head.value(of: .retryAfter).flatMap {
            RetryAfter.nanoseconds(
                String(decoding: $0, as: UTF8.self),
                answeredAt: head.value(of: .date).map { String(decoding: $0, as: UTF8.self) },
                now: exchange.worker.wallClock())
        }
        context.isStream = head.value(of: .contentType).map(Self.isEventStream) ?? false
        guard let terms = context.terms else { return }
        context.meter.begin(
            context.snapshot.agent.wireProtocol, countsTokens: terms.countsTokens,
            isEventStream: context.isStream)
        describe(exchange, context, terms)
    }

    /// The fields that explain the answer. `weir-decision` names the stage that would have refused
    /// the request, where the policy only observes.
    private func describe(
        _ exchange: Exchange, _ context: AttemptContext, _ terms: AttemptTerms
    ) {
        guard let observed = context.observed else {
            exchange.addedResponseFields.add(terms.admittedFields)
            return
        }
        exchange.addedResponseFields.add("weir-decision", observed.observedDecision)
        exchange.addedResponseFields.add("weir-agent", context.snapshot.agent.name)
        exchange.addedResponseFields.add("weir-model", context.model)
        exchange.addedResponseFields.add("weir-policy-version", context.snapshot.versionText)
        if let limit = terms.bound.writtenOutputMax {
            exchange.addedResponseFields.add("weir-max-tokens", decimal: UInt64(clamping: limit))
        }
    }

    // MARK: The end

    func attemptEnded(_ exchange: Exchange, _ outcome: ExchangeOutcome) {
        guard let context = Self.context(exchange) else { return }
        exchange.context = nil
        if outcome.responseIsWhole { context.meter.finish() }
        if let run = context.outboundRun { context.outboundCost = outbound?.end(run) ?? .zero }
        if context.isQueued {
            forget(context.caller.ticket)
            runtime.leave(context.caller.ticket)
        }
        if let permit = context.permit {
            let began = permit.endpoint?.startedNanoseconds ?? outcome.startedNanoseconds
            let firstByte = outcome.firstByteNanoseconds
            runtime.finish(
                context.caller, permit, AttemptOutcome.breaker(outcome, context),
                latencyNanoseconds: firstByte == 0 ? nil : firstByte - min(began, firstByte),
                nowNanoseconds: worker.loop.nowNanoseconds)
        }
        let cost = settle(exchange, outcome, context)
        count(outcome, context, cost)
        if let status = outcome.grpcStatus {
            series.called(
                exchange.requestHead.path, status, isServed: outcome.kind == .completed)
        }
        if outcome.kind == .refused || outcome.kind == .upstreamFailed, context.status == 0 {
            exchange.addedResponseFields.add("weir-agent", context.snapshot.agent.name)
            exchange.addedResponseFields.add("weir-policy-version", context.snapshot.versionText)
        }
        putBack(context)
    }

    /// Exactly once for each open attempt, whatever became of it.
    private func settle(
        _ exchange: Exchange, _ outcome: ExchangeOutcome, _ context: AttemptContext
    ) -> AttemptCost {
        let cost = AttemptOutcome.cost(outcome, context)
        guard let attempt = context.attempt else { return cost }
        context.attempt = nil
        var record = AttemptOutcome.record(outcome, context, cost)
        record.request = exchange.requestID
        record.run = record.request
        if context.isDelegated, let run = context.delegation?.run { record.run = run }
        record.paidBy = attempt.paidBy
        record.reserved = attempt.reserved
        if outcome.upstreamTouched { record.digests = context.finishDigests() }
        let isCarried = outcome.kind == .completed || outcome.kind == .refused
        guard let delegation = context.isDelegated ? context.delegation : nil else {
            guard let terms = context.terms else {
                preconditionFailure("what no delegation pays is opened by its terms")
            }
            _ = ledger.settle(attempt, record, terms.localNames, isCarried: isCarried)
            return cost
        }
        let isFinal = ledger.settle(
            attempt, record, names(delegation, context), isCarried: isCarried)
        if let verifier = context.snapshot.verifier {
            let settlement = Settlement(
                keyID: delegation.keyID, key: delegation.key, consumed: cost.amount,
                isFinal: isFinal,
                source: cost.source, reason: record.reason, model: context.model,
                isObserved: record.flags.contains(.observed), outbound: context.outboundCost)
            if let sealed = verifier.seal(settlement) { answer(exchange, context, sealed) }
        }
        return cost
    }

    /// In a trailer behind an answer of the agent's, in a field where we answer ourselves.
    private func answer(_ exchange: Exchange, _ context: AttemptContext, _ sealed: String) {
        if context.status > 0 {
            exchange.responseTrailers.add(Settlement.headerName, sealed)
        } else {
            exchange.addedResponseFields.add(Settlement.headerName, sealed)
        }
    }

    private func names(_ delegation: Delegation, _ context: AttemptContext) -> RecordNames {
        RecordNames(
            subject: delegation.subject, tier: delegation.tier, tenant: delegation.tenant,
            agent: context.snapshot.agent.name, model: context.model,
            requestType: delegation.requestType)
    }

    private func count(
        _ outcome: ExchangeOutcome, _ context: AttemptContext, _ cost: AttemptCost
    ) {
        let wasAdmitted = outcome.upstreamTouched || outcome.kind == .completed
        series.decided(wasAdmitted ? .admitted : outcome.reason)
        if let observed = context.permit?.observed {
            series.observed(observed, tier: context.tierName)
        }
        guard wasAdmitted else { return }
        series.attempted(
            cost, model: context.model, tier: context.tierName,
            outcome: AttemptOutcome.reason(outcome, context),
            nanoseconds: outcome.endedNanoseconds &- outcome.startedNanoseconds,
            firstByteNanoseconds: outcome.firstByteNanoseconds == 0
                ? 0 : outcome.firstByteNanoseconds &- outcome.startedNanoseconds)
    }

    // MARK: Fields

    private static func isEventStream(_ value: UnsafeRawBufferPointer) -> Bool {
        let name: StaticString = "text/event-stream"
        guard value.count >= name.utf8CodeUnitCount else { return false }
        return ASCII.equalsIgnoringCase(
            UnsafeRawBufferPointer(rebasing: value[..<name.utf8CodeUnitCount]), name)
    }
}
