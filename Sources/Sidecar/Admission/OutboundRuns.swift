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
        var isBusy = false
    }

    private struct State {
        var runs: [UInt64: Run] = [:]
        var nextCapability: UInt64 = 1
        var nextCall: UInt64 = 1
    }

    /// Known to this process alone: a capability is for its own sidecar.
    private let key = Crypto.randomBytes(32)
    private let state = Mutex(State())

    package init() {}

    /// What the agent gets with the request, and the number that `end` wants. `nil`: more requests
    /// than this keeps.
    func begin(
        _ delegation: Delegation, amount: NanoUSD, untilNanoseconds deadline: UInt64
    ) -> (field: String, number: UInt64)? {
        let number = state.withLock { state -> UInt64? in
            guard state.runs.count < Limits.outboundRunsMax else { return nil }
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

    func end(_ number: UInt64) { state.withLock { $0.runs[number] = nil } }

    /// A call sets everything aside that is left, so that calls at once cannot pass it together;
    /// hence one at a time.
    func take(_ field: String?, nowNanoseconds now: UInt64) throws(Failure) -> Taken {
        guard let field, let payload = Sealed.open(field, key: key),
            let capability = RunCapability(payload: payload)
        else { throw .unreadable }
        let result = state.withLock { state -> Result<Taken, Failure> in
            guard let run = state.runs[capability.number], now < run.deadlineNanoseconds else {
                return .failure(.over)
            }
            guard !run.isBusy else { return .failure(.busy) }
            guard run.left > .zero else { return .failure(.spent) }
            state.runs[capability.number]?.isBusy = true
            let number = state.nextCall
            state.nextCall += 1
            return .success(
                Taken(
                    capability: capability.number, delegation: run.delegation, amount: run.left,
                    number: number, deadlineNanoseconds: run.deadlineNanoseconds))
        }
        return try result.get()
    }

    func giveBack(_ taken: Taken, cost: NanoUSD) {
        state.withLock { state in
            guard var run = state.runs[taken.capability] else { return }
            run.isBusy = false
            run.left = max(.zero, run.left - cost)
            state.runs[taken.capability] = run
        }
    }
}
