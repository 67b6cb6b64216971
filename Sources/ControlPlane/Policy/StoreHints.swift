import WeirCore

/// That something changed in the store. A hint gets lost whenever the connection does: whoever acts
/// on it looks at the store, and polls each second besides.
package enum StoreHint: Hashable, Sendable {
    /// The subscription (re)began: anything may have changed.
    case anything
    case policyChanged
    case endpointsChanged
    case recall(LeaseRecall)
    /// What gateways were told about this user is out of date.
    case subjectChanged(String)
}

extension Redis {
    package func hints() -> AsyncStream<StoreHint> {
        let messages = subscribe([
            StoreKeys.policyChannel, StoreKeys.endpointsChannel, StoreKeys.recallChannel,
            StoreKeys.subjectChannel,
        ])
        let (stream, continuation) = AsyncStream.makeStream(
            of: StoreHint.self, bufferingPolicy: .bufferingNewest(StoreLimits.redisHintsMax))
        let forwarding = Task {
            for await message in messages {
                if let hint = StoreHint(message) { continuation.yield(hint) }
            }
            continuation.finish()
        }
        continuation.onTermination = { _ in forwarding.cancel() }
        return stream
    }
}

extension StoreHint {
    init?(_ message: RedisHint) {
        switch message {
        case .subscribed: self = .anything
        case .message(StoreKeys.policyChannel, _): self = .policyChanged
        case .message(StoreKeys.endpointsChannel, _): self = .endpointsChanged
        case .message(StoreKeys.recallChannel, let payload):
            guard
                let recall = try? JSON.decode(LeaseRecall.self, from: Array(payload.utf8))
            else { return nil }
            self = .recall(recall)
        case .message(StoreKeys.subjectChannel, let user): self = .subjectChanged(user)
        case .message: return nil
        }
    }
}
