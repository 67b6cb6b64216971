import Synchronization
import WeirCore
import WeirCrypto
import WeirMeshProtocol

/// The requests at this sidecar's agent that may make calls of their own, and what each may still
/// spend. An entry lives as long as its request: a capability that outlives it opens nothing. One
/// for the process, shared by the inbound and the outbound workers.
package final class OutboundRuns: Sendable {
    enum Failure: Error, Equatable {
        case unreadable, over, busy, spent

        var reason: Reason {
            switch self {
            case .unreadable, .over: .forbidden
            case .busy: .concurrency
            case .spent: .budgetExhausted
            }
        }

        var detail: String {
            switch self {
            case .unreadable: "A weir-run field of this sidecar is needed, as it came."
            case .over: "The request that the calls were allowed for is over."
            case .busy: "Another call for the same request is in progress."
            case .spent: "The calls for this request have spent what they may."
            }
        }
    }

    /// A call that was let through; given back with what it cost.
    struct Taken: Sendable {
        let capability: UInt64
        let delegation: Delegation
        let amount: NanoUSD
        /// Of the call.
        let number: UInt64
        let deadlineNanoseconds: UInt64
    }

    private struct Run {
        let delegation: Delegation
        let deadlineNanoseconds: UInt64
        var left: NanoUSD
        var spent = NanoUSD.zero
        var isBusy = false
    }

    private struct State {
        var runs: [UInt64: Run] = [:]
        var nextCapability: UInt64 = 1
        var nextCall: UInt64 = 1

        mutating func taken(_ capability: UInt64, _ run: Run, _ amount: NanoUSD) -> Taken {
            defer { nextCall += 1 }
            return Taken(
                capability: capability, delegation: run.delegation, amount: amount,
                number: nextCall, deadlineNanoseconds: run.deadlineNanoseconds)
        }
    }

    /// Known to this process alone: a capability is for its own sidecar.
    private let key = Crypto.randomBytes(32)
    private let state = Mutex(State())

    /// How many requests are kept at once.
    private let countMax: Int

    package init(countMax: Int = Limits.outboundRunsMax) { self.countMax = countMax }

    /// What the agent gets with the request, and the number that `end` wants. `nil`: more requests
    /// than this keeps.
    func begin(
        _ delegation: Delegation, amount: NanoUSD, untilNanoseconds deadline: UInt64
    ) -> (field: String, number: UInt64)? {
        let number = state.withLock { state -> UInt64? in
            guard state.runs.count < countMax else { return nil }
            let number = state.nextCapability
            state.nextCapability += 1
            state.runs[number] = Run(
                delegation: delegation, deadlineNanoseconds: deadline, left: amount)
            return number
        }
        guard let number else { return nil }
        let capability = RunCapability(number: number, run: delegation.run)
        return (Sealed.seal(capability.payload, key: key), number)
    }

    /// The request is over: its capability opens nothing any more.
    ///
    /// - Returns: what its calls cost; one that is still in progress counts with all that it may.
    func end(_ number: UInt64) -> NanoUSD {
        state.withLock { state in
            guard let run = state.runs.removeValue(forKey: number) else { return .zero }
            return run.isBusy ? run.spent + run.left : run.spent
        }
    }

    /// A call sets everything aside that is left, so that calls at once cannot pass it together;
    /// hence one at a time.
    func take(_ field: String?, nowNanoseconds now: UInt64) throws(Failure) -> Taken {
        let capability = try open(field)
        return try state.withLock { state -> Result<Taken, Failure> in
            guard var run = state.runs[capability], now < run.deadlineNanoseconds else {
                return .failure(.over)
            }
            guard !run.isBusy else { return .failure(.busy) }
            guard run.left > .zero else { return .failure(.spent) }
            run.isBusy = true
            state.runs[capability] = run
            return .success(state.taken(capability, run, run.left))
        }.get()
    }

    /// For a question that costs nothing.
    func look(_ field: String?, nowNanoseconds now: UInt64) throws(Failure) -> Taken {
        let capability = try open(field)
        return try state.withLock { state -> Result<Taken, Failure> in
            guard let run = state.runs[capability], now < run.deadlineNanoseconds else {
                return .failure(.over)
            }
            return .success(state.taken(capability, run, .zero))
        }.get()
    }

    private func open(_ field: String?) throws(Failure) -> UInt64 {
        guard let field, let payload = Sealed.open(field, key: key),
            let capability = RunCapability(payload: payload)
        else { throw .unreadable }
        return capability.number
    }

    /// Of a call that was taken, not of a question.
    func giveBack(_ taken: Taken, cost: NanoUSD) {
        state.withLock { state in
            guard var run = state.runs[taken.capability] else { return }
            run.isBusy = false
            run.left = max(.zero, run.left - cost)
            run.spent += cost
            state.runs[taken.capability] = run
        }
    }
}
