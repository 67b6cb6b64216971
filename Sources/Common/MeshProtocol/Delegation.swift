import WeirCore
import WeirLedger

/// Budgets travel with the request, as deadlines do: what one call to an agent may cost at most,
/// and for whom. Carried as `weir-delegation: base64url(payload).base64url(HMAC-SHA256(payload))`,
/// under the hop key of the sidecar that it is addressed to. Accepted once: (issuer, lease, child).
package struct Delegation: Hashable, Sendable {
    package static let headerName = "weir-delegation"
    package static let payloadVersion: UInt8 = 3
    /// The same with tags behind it, so that a sidecar which knows none still reads what has none.
    package static let taggedVersion: UInt8 = 4

    package var keyID: UInt32
    package var issuer: Incarnation
    package var audience: Incarnation
    package var key: ChildKey
    package var amount: NanoUSD
    package var run: Identifier
    package var request: Identifier
    package var subject: String
    package var tenant: String
    package var tier: String
    package var requestType: String
    package var agent: String
    package var method: String
    package var path: String
    package var remainingMilliseconds: UInt32
    /// How many agents called one another until here; 0 for a user's own request.
    package var depth: UInt8
    /// What would have refused the request, where the policy only observes; `.admitted`: nothing.
    package var observed: Reason
    /// What the agent's own calls for this request may cost, beside `amount`.
    package var outbound: NanoUSD
    /// For the accounts of those; says nothing where there are none.
    package var knownBy: KnownBy
    package var tags: Tags

    package init(
        keyID: UInt32, issuer: Incarnation, audience: Incarnation, key: ChildKey, amount: NanoUSD,
        run: Identifier, request: Identifier, subject: String, tenant: String, tier: String,
        requestType: String, agent: String, method: String, path: String,
        remainingMilliseconds: UInt32, depth: UInt8 = 0, observed: Reason = .admitted,
        outbound: NanoUSD = .zero, knownBy: KnownBy = .user, tags: Tags = .none
    ) {
        self.keyID = keyID
        self.issuer = issuer
        self.audience = audience
        self.key = key
        self.amount = amount
        self.run = run
        self.request = request
        self.subject = subject
        self.tenant = tenant
        self.tier = tier
        self.requestType = requestType
        self.agent = agent
        self.method = method
        self.path = path
        self.remainingMilliseconds = remainingMilliseconds
        self.depth = depth
        self.observed = observed
        self.outbound = outbound
        self.knownBy = knownBy
        self.tags = tags
    }

    package var payload: [UInt8] {
        var writer = ByteWriter(capacity: 256)
        writer.integer(tags.isEmpty ? Self.payloadVersion : Self.taggedVersion)
        writer.integer(keyID)
        for number in [
            issuer.rawValue, audience.rawValue, key.lease.incarnation.rawValue, key.lease.number,
            key.child, amount.rawValue,
        ] {
            writer.integer(number)
        }
        for identifier in [run, request] {
            writer.integer(identifier.high)
            writer.integer(identifier.low)
        }
        writer.integer(remainingMilliseconds)
        writer.integer(depth)
        writer.integer(observed.rawValue)
        writer.integer(outbound.rawValue)
        for text in [subject, tenant, tier, requestType, agent, method, path, knownBy.text] {
            writer.string(text)
        }
        if !tags.isEmpty { writer.string(tags.text) }
        return writer.bytes
    }

    /// `nil` for anything that `payload` does not write.
    package init?(payload: [UInt8]) {
        var reader = ByteReader(payload)
        guard let version = reader.integer(UInt8.self),
            version == Self.payloadVersion || version == Self.taggedVersion,
            let keyID = reader.integer(UInt32.self),
            let issuer = reader.integer(Int64.self), let audience = reader.integer(Int64.self),
            let leaseIncarnation = reader.integer(Int64.self),
            let leaseNumber = reader.integer(Int64.self), let child = reader.integer(Int64.self),
            let amount = reader.integer(Int64.self), amount >= 0,
            let run = reader.identifier(), let request = reader.identifier(),
            let remaining = reader.integer(UInt32.self),
            let depth = reader.integer(UInt8.self),
            let observed = reader.integer(UInt8.self).flatMap(Reason.init(rawValue:)),
            let outbound = reader.integer(Int64.self), outbound >= 0,
            let subject = reader.string(), let tenant = reader.string(),
            let tier = reader.string(), let requestType = reader.string(),
            let agent = reader.string(), let method = reader.string(), let path = reader.string(),
            let knownBy = reader.string().flatMap(KnownBy.init(text:)),
            let tags = reader.tags(version == Self.taggedVersion), reader.isAtEnd
        else { return nil }
        let lease = LeaseID(incarnation: Incarnation(leaseIncarnation), number: leaseNumber)
        self.init(
            keyID: keyID, issuer: Incarnation(issuer), audience: Incarnation(audience),
            key: ChildKey(lease: lease, child: child), amount: NanoUSD(amount), run: run,
            request: request, subject: subject, tenant: tenant, tier: tier,
            requestType: requestType, agent: agent, method: method, path: path,
            remainingMilliseconds: remaining, depth: depth, observed: observed,
            outbound: NanoUSD(outbound), knownBy: knownBy, tags: tags)
    }
}

/// The way back: what a delegation's attempt cost, under the same hop key. In the trailer
/// `weir-settlement`, or in a header of that name where the response has no body.
package struct Settlement: Hashable, Sendable {
    package static let headerName = "weir-settlement"
    package static let payloadVersion: UInt8 = 3

    package var keyID: UInt32
    package var key: ChildKey
    package var consumed: NanoUSD
    /// False: open at the sidecar still; the final comes through the control plane.
    package var isFinal: Bool
    package var source: CostSource
    package var reason: Reason
    package var model: String
    /// The policy only observed: `reason` would have refused the attempt, and did not.
    package var isObserved: Bool
    /// What the agent's own calls cost, beside `consumed`. For the bill alone: each of them was
    /// charged by itself, to the same accounts.
    package var outbound: NanoUSD
    /// Said where the tier counts them; `nil` also where the agent did not report them.
    package var tokens: Int64?

    package init(
        keyID: UInt32, key: ChildKey, consumed: NanoUSD, isFinal: Bool, source: CostSource,
        reason: Reason, model: String, isObserved: Bool = false, outbound: NanoUSD = .zero,
        tokens: Int64? = nil
    ) {
        self.keyID = keyID
        self.key = key
        self.consumed = consumed
        self.isFinal = isFinal
        self.source = source
        self.reason = reason
        self.model = model
        self.isObserved = isObserved
        self.outbound = outbound
        self.tokens = tokens
    }

    package var payload: [UInt8] {
        var writer = ByteWriter(capacity: 96)
        writer.integer(Self.payloadVersion)
        writer.integer(keyID)
        for number in [
            key.lease.incarnation.rawValue, key.lease.number, key.child, consumed.rawValue,
        ] {
            writer.integer(number)
        }
        writer.integer(
            UInt8((isFinal ? 1 : 0) + (isObserved ? 2 : 0) + (tokens == nil ? 0 : 4)))
        writer.integer(source.rawValue)
        writer.integer(reason.rawValue)
        writer.integer(outbound.rawValue)
        if let tokens { writer.integer(tokens) }
        writer.string(model)
        return writer.bytes
    }

    package init?(payload: [UInt8]) {
        var reader = ByteReader(payload)
        guard reader.integer(UInt8.self) == Self.payloadVersion,
            let keyID = reader.integer(UInt32.self),
            let leaseIncarnation = reader.integer(Int64.self),
            let leaseNumber = reader.integer(Int64.self), let child = reader.integer(Int64.self),
            let consumed = reader.integer(Int64.self), consumed >= 0,
            let flags = reader.integer(UInt8.self), flags <= 7,
            let source = reader.integer(UInt8.self).flatMap(CostSource.init(rawValue:)),
            let reason = reader.integer(UInt8.self).flatMap(Reason.init(rawValue:)),
            let outbound = reader.integer(Int64.self), outbound >= 0
        else { return nil }
        let tokens = flags & 4 != 0 ? reader.integer(Int64.self) : nil
        guard flags & 4 == 0 || tokens ?? -1 >= 0, let model = reader.string(), reader.isAtEnd
        else { return nil }
        let lease = LeaseID(incarnation: Incarnation(leaseIncarnation), number: leaseNumber)
        self.init(
            keyID: keyID, key: ChildKey(lease: lease, child: child), consumed: NanoUSD(consumed),
            isFinal: flags & 1 != 0, source: source, reason: reason, model: model,
            isObserved: flags & 2 != 0, outbound: NanoUSD(outbound), tokens: tokens)
    }
}

extension ByteReader {
    /// What a tagged version has behind it, and says of none in no other way.
    mutating func tags(_ areThere: Bool) -> Tags? {
        guard areThere else { return Tags.none }
        return string().flatMap(Tags.init(text:)).flatMap { $0.isEmpty ? nil : $0 }
    }

    mutating func identifier() -> Identifier? {
        guard let high = integer(UInt64.self), let low = integer(UInt64.self) else { return nil }
        return Identifier(high: high, low: low)
    }
}
