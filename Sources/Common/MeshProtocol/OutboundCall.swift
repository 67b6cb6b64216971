import WeirCore
import WeirLedger

/// What an agent may do for the request that it works on: call others, through its own sidecar, in
/// the same run and for the same user. The sidecar gives it with the request, in the field
/// `weir-run`, and takes it back in the same field on its outbound listener. It names a request
/// that is in progress there; everything else is looked up, so nothing in it is the agent's to
/// choose.
package struct RunCapability: Hashable, Sendable {
    package static let headerName = "weir-run"
    package static let payloadVersion: UInt8 = 1

    package var number: UInt64
    package var run: Identifier

    package init(number: UInt64, run: Identifier) {
        self.number = number
        self.run = run
    }

    package var payload: [UInt8] {
        var writer = ByteWriter(capacity: 32)
        writer.integer(Self.payloadVersion)
        writer.integer(number)
        writer.integer(run.high)
        writer.integer(run.low)
        return writer.bytes
    }

    /// `nil` for anything that `payload` does not write.
    package init?(payload: [UInt8]) {
        var reader = ByteReader(payload)
        guard reader.integer(UInt8.self) == Self.payloadVersion,
            let number = reader.integer(UInt64.self), let run = reader.identifier(),
            reader.isAtEnd
        else { return nil }
        self.init(number: number, run: run)
    }
}

/// One call of an agent, as its sidecar puts it to a gateway: `authorization: Weir-Run SEALED`,
/// under the sidecar's hop key, which gateways know and agents do not.
package struct OutboundCall: Hashable, Sendable {
    package static let scheme = "Weir-Run"
    /// Before the path of the call, at the gateway.
    package static let pathPrefix = "/outbound"
    package static let payloadVersion: UInt8 = 1
    /// The same with tags behind it.
    package static let taggedVersion: UInt8 = 2

    package var keyID: UInt32
    package var issuer: Incarnation
    /// Never used twice in the issuer's life.
    package var number: UInt64
    /// What the call may cost.
    package var amount: NanoUSD
    package var run: Identifier
    package var subject: String
    package var tenant: String
    package var tier: String
    package var knownBy: KnownBy
    package var requestType: String
    /// The agent that calls.
    package var agent: String
    /// What it calls, as its sidecar's outbound listener has the path.
    package var path: String
    /// Agents that called one another until here, this one included.
    package var depth: UInt8
    package var remainingMilliseconds: UInt32
    package var tags: Tags

    package init(
        keyID: UInt32, issuer: Incarnation, number: UInt64, amount: NanoUSD, run: Identifier,
        subject: String, tenant: String, tier: String, knownBy: KnownBy, requestType: String,
        agent: String, path: String, depth: UInt8, remainingMilliseconds: UInt32,
        tags: Tags = .none
    ) {
        self.keyID = keyID
        self.issuer = issuer
        self.number = number
        self.amount = amount
        self.run = run
        self.subject = subject
        self.tenant = tenant
        self.tier = tier
        self.knownBy = knownBy
        self.requestType = requestType
        self.agent = agent
        self.path = path
        self.depth = depth
        self.remainingMilliseconds = remainingMilliseconds
        self.tags = tags
    }

    package var payload: [UInt8] {
        var writer = ByteWriter(capacity: 192)
        writer.integer(tags.isEmpty ? Self.payloadVersion : Self.taggedVersion)
        writer.integer(keyID)
        writer.integer(issuer.rawValue)
        writer.integer(number)
        writer.integer(amount.rawValue)
        writer.integer(run.high)
        writer.integer(run.low)
        writer.integer(depth)
        writer.integer(remainingMilliseconds)
        for text in [subject, tenant, tier, knownBy.text, requestType, agent, path] {
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
            let keyID = reader.integer(UInt32.self), let issuer = reader.integer(Int64.self),
            let number = reader.integer(UInt64.self), let amount = reader.integer(Int64.self),
            amount >= 0, let run = reader.identifier(), let depth = reader.integer(UInt8.self),
            let remaining = reader.integer(UInt32.self), let subject = reader.string(),
            let tenant = reader.string(), let tier = reader.string(),
            let knownBy = reader.string().flatMap(KnownBy.init(text:)),
            let requestType = reader.string(), let agent = reader.string(),
            let path = reader.string(),
            let tags = reader.tags(version == Self.taggedVersion), reader.isAtEnd
        else { return nil }
        self.init(
            keyID: keyID, issuer: Incarnation(issuer), number: number, amount: NanoUSD(amount),
            run: run, subject: subject, tenant: tenant, tier: tier, knownBy: knownBy,
            requestType: requestType, agent: agent, path: path, depth: depth,
            remainingMilliseconds: remaining, tags: tags)
    }
}

extension OutboundCall {
    /// What the control plane is asked about who pays.
    package var subjectRequest: SubjectRequest {
        switch knownBy {
        case .user:
            SubjectRequest(
                claims: .init(
                    subject: subject, tier: tier, tenant: tenant.isEmpty ? nil : tenant, roles: [],
                    tags: tags), apiKeyHash: nil)
        case .apiKey(let hash): SubjectRequest(claims: nil, apiKeyHash: hash, tags: tags)
        case .mesh: SubjectRequest(claims: nil, apiKeyHash: nil, isMesh: true)
        }
    }
}
