import WeirCore
import WeirCrypto
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
            isEventStream: context.isStream, tree: context.snapshot.usageTree)
        if terms.countsTokens, let tree = context.snapshot.usageTree {
            for (name, counter) in tree.headers {
                if let value = head.string(named: name) {
                    context.meter.note(counter, field: value)
                }
            }
        }
        if context.meter.readsEvents {
            if let reserved = context.attempt?.reserved {
                context.eventsMax = terms.bound.eventsMax(within: reserved)
            }
            if terms.bound.hidesUsage {
                context.filter.reset()
                exchange.filtersResponse = true
            }
        }
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

    // MARK: Usage that the client did not ask for

    /// With a meter and a filter of its own during the call, because sending may end the exchange,
    /// and its end reads the meter. False when it did.
    func passFiltered(
        _ bytes: UnsafeRawBufferPointer, _ exchange: Exchange, _ context: AttemptContext
    ) -> Bool {
        if context.snapshot.agent.bodyDigests { context.responseHash.update(bytes) }
        return filtered(exchange, context) { meter, filter in
            meter.feed(bytes, through: &filter) { exchange.sendFiltered($0) }
        }
    }

    func endFiltered(_ exchange: Exchange, _ context: AttemptContext) {
        _ = filtered(exchange, context) { meter, filter in
            meter.finish(through: &filter) { exchange.sendFiltered($0) }
        }
    }

    private func filtered(
        _ exchange: Exchange, _ context: AttemptContext,
        _ work: (inout UsageMeter, inout UsageEventFilter) -> Void
    ) -> Bool {
        var meter = context.meter
        var filter = UsageEventFilter()
        swap(&filter, &context.filter)
        work(&meter, &filter)
        guard exchange.context === context else { return false }
        context.meter = meter
        context.filter = filter
        return true
    }

    // MARK: The edge of a budget

    /// The agent does not keep to its bound, and goes on writing what nobody has set money aside
    /// for. Clients are told in the form in which they look for errors in a stream.
    func cutAtTheEdge(_ exchange: Exchange, _ context: AttemptContext) {
        let detail = "\(context.snapshot.agent.name) wrote more than what was set aside pays for."
        let begin = context.meter.isInEvent ? "\n\n" : ""
        let event =
            context.snapshot.agent.wireProtocol == .anthropic
            ? "event: error\ndata: \(AnthropicError(.budgetExhausted, message: detail).json.text)"
            : "data: \(OpenAIError(.budgetExhausted, message: detail).json.text)"
        Array((begin + event + "\n\n").utf8).withUnsafeBytes {
            exchange.cutShort(lastBytes: $0, reason: .budgetExhausted)
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
        if cost.isOverrun, let terms = context.terms { runtime.shut(terms.bound) }
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
                isObserved: record.flags.contains(.observed), outbound: context.outboundCost,
                tokens: context.tier.countsTokens ? cost.knownTokens : nil)
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
            requestType: delegation.requestType, tags: delegation.tags.text)
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
