import WeirCore
import WeirLedger
import WeirMeshProtocol

extension AttemptRecord {
    /// The bytes of `bytes`, straight into the mapping: no array is made on the way.
    func write(to start: UnsafeMutableRawPointer) {
        var writer = RawWriter(start)
        writer.integer(sequence)
        writer.integer(incarnation.rawValue)
        writer.integer(startedAt.milliseconds)
        writer.integer(run.high)
        writer.integer(run.low)
        writer.integer(request.high)
        writer.integer(request.low)
        writer.lease(paidBy.lease)
        writer.integer(paidBy.child)
        writer.integer(reserved.rawValue)
        writer.integer(cost.rawValue)
        writer.integer(tokens.input)
        writer.integer(tokens.cachedInput)
        writer.integer(tokens.cacheWrite)
        writer.integer(tokens.output)
        writer.integer(tokens.reasoning)
        writer.integer(latencyMicroseconds)
        writer.integer(firstByteMicroseconds)
        writer.integer(status)
        writer.integer(reason.rawValue)
        writer.integer(source.rawValue)
        writer.integer(subject)
        writer.integer(tier)
        writer.integer(tenant)
        writer.integer(agent)
        writer.integer(model)
        writer.integer(requestType)
        writer.integer(policyNumber)
        writer.integer(priceVersion)
        writer.integer(flags.rawValue)
        writer.zeros(3)
        writer.integer(tags)
        guard let digests else { return }
        writer.digest(digests.input)
        writer.digest(digests.output)
        // Room for the salts of the commitments.
        writer.zeros(64)
    }
}
