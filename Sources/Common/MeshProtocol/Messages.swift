import WeirCore
import WeirLedger
import WeirPolicy

// What a sidecar and the control plane say to each other: JSON over one HTTP/2 connection, amounts
// as decimal strings, deadlines as remaining milliseconds. `MeshPath` names where each goes. Every
// request but `join` carries `authorization: Bearer <session>`, and the session names the
// incarnation, so no message repeats it.

package enum MeshPath {
    package static let join = "/mesh/v1/join"
    package static let policy = "/mesh/v1/policy"
    package static let ack = "/mesh/v1/ack"
    package static let leases = "/mesh/v1/leases"
    package static let report = "/mesh/v1/report"
    package static let records = "/mesh/v1/records"
    package static let subject = "/mesh/v1/subject"
    package static let idempotency = "/mesh/v1/idempotency"
    package static let state = "/mesh/v1/state"
}

package enum MeshLimits {
    /// One version of the protocol so far; a join names what it speaks.
    package static let protocolVersion = 1
    package static let leasesPerMessageMax = LedgerLimits.leasesPerMessageMax
    package static let finalsPerMessageMax = LedgerLimits.finalsPerMessageMax
    package static let inquiriesPerMessageMax = LedgerLimits.inquiriesPerMessageMax
    package static let messageBytesMax = 4 << 20
    package static let recordsPerBlockMax = 256
    package static let blocksPerMessageMax = 16
    /// A part that has not reported for this long is not counted on.
    package static let silentMilliseconds: Int64 = 6_000
    /// What `MeshState` lists, and how long a part that fell silent is still told of.
    package static let stateMembersMax = 2_000
    package static let stateMilliseconds: Int64 = 60_000
    package static let vitalEndpointsMax = 32
    package static let vitalRequestsMax = 256
    package static let vitalDetoursMax = 128
    /// Of a body that is kept for replays: they share Redis with the ledger.
    package static let storedAnswerBytesMax = 64 << 10
    package static let subjectsPerLineMax = 1_024
    /// A watch without a line for this long is dead.
    package static let bookmarkMilliseconds: Int64 = 1_000
}

package enum Role: String, Sendable, Codable { case agent, gateway }

// MARK: - Join

package struct JoinRequest: Hashable, Sendable, Codable {
    /// Proof that this process continues the journal of an earlier incarnation: an HMAC-SHA256 of
    /// the text "predecessor INCARNATION" under the journal secret of that incarnation's join.
    package struct Predecessor: Hashable, Sendable, Codable {
        package var incarnation: Incarnation
        package var proof: String
        package init(incarnation: Incarnation, proof: String) {
            self.incarnation = incarnation
            self.proof = proof
        }
    }

    package var protocolVersions: [Int]
    /// The join token.
    package var credential: String
    package var role: Role
    /// Absent for a gateway.
    package var agent: String?
    /// Of the agent, where the policy gives versions weights.
    package var agentVersion: String?
    /// Where others reach this sidecar's inbound listener, "host:port".
    package var endpoint: String?
    /// A name for people: the pod's or the host's.
    package var instance: String
    package var predecessor: Predecessor?

    package init(
        credential: String, role: Role, agent: String?, agentVersion: String? = nil,
        endpoint: String?, instance: String, predecessor: Predecessor?
    ) {
        self.agentVersion = agentVersion
        protocolVersions = [MeshLimits.protocolVersion]
        self.credential = credential
        self.role = role
        self.agent = agent
        self.endpoint = endpoint
        self.instance = instance
        self.predecessor = predecessor
    }
}

/// The key that MACs delegations to one sidecar and settlements back from it; 32 random bytes in
/// base64url. Gateways get it with the sidecar's endpoint; agents and other sidecars never do.
package struct HopKey: Hashable, Sendable, Codable {
    package var id: UInt32
    package var secret: String
    package init(id: UInt32, secret: String) {
        self.id = id
        self.secret = secret
    }
}

package struct JoinResponse: Hashable, Sendable, Codable {
    package var protocolVersion: Int
    package var incarnation: Incarnation
    package var session: String
    /// Goes into the journal's header; proves succession at the next join. Base64url.
    package var journalSecret: String
    package var hopKey: HopKey?
    package var epoch: Int64
    /// The predecessor whose leases this incarnation may now report and release.
    package var adopted: Incarnation?
    /// Mesh addresses of all control-plane replicas.
    package var replicas: [String]

    package init(
        incarnation: Incarnation, session: String, journalSecret: String, hopKey: HopKey?,
        epoch: Int64, adopted: Incarnation?, replicas: [String]
    ) {
        protocolVersion = MeshLimits.protocolVersion
        self.incarnation = incarnation
        self.session = session
        self.journalSecret = journalSecret
        self.hopKey = hopKey
        self.epoch = epoch
        self.adopted = adopted
        self.replicas = replicas
    }
}

// MARK: - Policy

/// What one sidecar needs of the policy, closed: documents with everything that they refer to, and
/// for gateways where the agents' sidecars are.
package struct Projection: Hashable, Sendable, Codable {
    package struct Endpoint: Hashable, Sendable, Codable {
        package var agent: String
        package var incarnation: Incarnation
        package var address: String
        package var hopKey: HopKey
        /// Of the agent; absent where the sidecar says none.
        package var version: String?
        package init(
            agent: String, incarnation: Incarnation, address: String, hopKey: HopKey,
            version: String? = nil
        ) {
            self.version = version
            self.agent = agent
            self.incarnation = incarnation
            self.address = address
            self.hopKey = hopKey
        }
    }

    /// Of the policy bundle.
    package var version: PolicyVersion
    package var documents: [JSONValue]
    package var endpoints: [Endpoint]

    package init(version: PolicyVersion, documents: [JSONValue], endpoints: [Endpoint]) {
        self.version = version
        self.documents = documents
        self.endpoints = endpoints
    }
}

/// A line of `GET /mesh/v1/policy?watch`, newline-delimited JSON.
package enum PolicyEvent: Hashable, Sendable {
    /// The hash is of the projection's canonical bytes: the same version with another hash at one
    /// sidecar means that its endpoints changed.
    case projection(hash: String, Projection)
    /// A heartbeat with the current version.
    case bookmark(PolicyVersion)
    /// Leases to give back as far as they are idle.
    case recall([LeaseID])
    /// Users whose bindings are out of date: ask again. None: anybody's may be.
    case subjects([String])
}

extension PolicyEvent: Codable {
    private enum Keys: String, CodingKey { case type, hash, projection, version, leases, users }
    private enum Kind: String, Codable { case projection, bookmark, recall, subjects }

    package init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: Keys.self)
        switch try container.decode(Kind.self, forKey: .type) {
        case .projection:
            self = .projection(
                hash: try container.decode(String.self, forKey: .hash),
                try container.decode(Projection.self, forKey: .projection))
        case .bookmark:
            self = .bookmark(try container.decode(PolicyVersion.self, forKey: .version))
        case .recall: self = .recall(try container.decode([LeaseID].self, forKey: .leases))
        case .subjects: self = .subjects(try container.decode([String].self, forKey: .users))
        }
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: Keys.self)
        switch self {
        case .projection(let hash, let projection):
            try container.encode(Kind.projection, forKey: .type)
            try container.encode(hash, forKey: .hash)
            try container.encode(projection, forKey: .projection)
        case .bookmark(let version):
            try container.encode(Kind.bookmark, forKey: .type)
            try container.encode(version, forKey: .version)
        case .recall(let leases):
            try container.encode(Kind.recall, forKey: .type)
            try container.encode(leases, forKey: .leases)
        case .subjects(let users):
            try container.encode(Kind.subjects, forKey: .type)
            try container.encode(users, forKey: .users)
        }
    }
}

package struct PolicyAck: Hashable, Sendable, Codable {
    package var version: PolicyVersion
    package var projectionHash: String
    package var applied: Bool
    package var problems: [Problem]

    package init(
        version: PolicyVersion, projectionHash: String, applied: Bool, problems: [Problem]
    ) {
        self.version = version
        self.projectionHash = projectionHash
        self.applied = applied
        self.problems = problems
    }
}

// MARK: - Report

package struct SidecarHealth: Hashable, Sendable, Codable {
    package enum State: String, Sendable, Codable { case serving, degraded, draining }
    package var state: State
    package var reasons: [String]
    package var requestsInFlight: Int
    package var journalBytes: Int64
    /// When the state began, as far as this process knows.
    package var since: UnixTime?
    /// Of an agent's sidecar.
    package var agent: AgentVitals?
    /// Of a gateway.
    package var gateway: GatewayVitals?

    package init(
        state: State, reasons: [String], requestsInFlight: Int, journalBytes: Int64,
        since: UnixTime? = nil, agent: AgentVitals? = nil, gateway: GatewayVitals? = nil
    ) {
        self.state = state
        self.reasons = reasons
        self.requestsInFlight = requestsInFlight
        self.journalBytes = journalBytes
        self.since = since
        self.agent = agent
        self.gateway = gateway
    }
}

package struct Report: Hashable, Sendable, Codable {
    package var highestLease: Int64
    /// All open leases, those of an adopted predecessor included.
    package var leases: [LeaseCounters]
    /// Of delegations that others gave to this sidecar. A success answer means they are kept.
    package var childFinals: [ChildFinal]
    /// Finals that this holder has in its journal; the answer stops repeating them.
    package var acknowledgedFinals: [ChildKey]
    /// Children whose calls ended without a settlement: what became of them is asked of those that
    /// they were addressed to, again with each report until their finals are here.
    package var openChildren: [OpenChild]
    package var health: SidecarHealth
    /// The epoch of the store in which, with this report, all leases have been listed; 0: none.
    /// Absent from holders that do not know of epochs.
    package var epoch: Int64?

    package init(
        highestLease: Int64, leases: [LeaseCounters], childFinals: [ChildFinal],
        acknowledgedFinals: [ChildKey], openChildren: [OpenChild] = [], health: SidecarHealth,
        epoch: Int64? = nil
    ) {
        self.epoch = epoch
        self.highestLease = highestLease
        self.leases = leases
        self.childFinals = childFinals
        self.acknowledgedFinals = acknowledgedFinals
        self.openChildren = openChildren
        self.health = health
    }
}

// MARK: - Records

package struct RecordsResponse: Hashable, Sendable, Codable {
    /// Every record of this incarnation up to this sequence is stored for good.
    package var storedThrough: UInt64
    package init(storedThrough: UInt64) { self.storedThrough = storedThrough }
}

// MARK: - Subjects

package struct SubjectRequest: Hashable, Sendable, Codable {
    /// Claims of a token that the gateway has verified.
    package struct Claims: Hashable, Sendable, Codable {
        package var subject: String
        package var tier: String?
        package var tenant: String?
        package var roles: [String]
        /// Those that the token gives to all of its requests.
        package var tags: [String]?
        package init(
            subject: String, tier: String?, tenant: String?, roles: [String],
            tags: Tags = .none
        ) {
            self.subject = subject
            self.tier = tier
            self.tenant = tenant
            self.roles = roles
            self.tags = tags.isEmpty ? nil : tags.names
        }
    }

    package var claims: Claims?
    /// SHA-256 of an API key, in hexadecimal.
    package var apiKeyHash: String?
    /// The mesh itself, which pays for tests of agents; instead of the other two.
    package var isMesh: Bool?
    /// Those that the caller asks for with this request, beside its token's or key's.
    package var tags: [String]?

    package init(
        claims: Claims?, apiKeyHash: String?, isMesh: Bool? = nil, tags: Tags = .none
    ) {
        self.claims = claims
        self.apiKeyHash = apiKeyHash
        self.isMesh = isMesh
        self.tags = tags.isEmpty ? nil : tags.names
    }
}

/// Who a caller is to the ledger. The tier is the control plane's binding, not the token's claim.
package struct SubjectBinding: Hashable, Sendable, Codable {
    package struct Account: Hashable, Sendable, Codable {
        package var unit: AccountKey.Unit
        package var scope: AccountKey.Scope
        package var period: Period.Kind
        package var id: String
        package var limit: NanoUSD
        package init(
            unit: AccountKey.Unit, scope: AccountKey.Scope, period: Period.Kind, id: String,
            limit: NanoUSD
        ) {
            self.unit = unit
            self.scope = scope
            self.period = period
            self.id = id
            self.limit = limit
        }

        /// What one holder may have of it and not have used, where no money is counted; at least
        /// one. A minute is short, and what lies in the wrong place is recalled at once: so the
        /// share is larger, for fewer exchanges.
        package var countedMaxLease: NanoUSD {
            NanoUSD(max(1, limit.rawValue / (period == .minute ? 10 : 20)))
        }

        package func key(at time: UnixTime) -> AccountKey {
            AccountKey(unit: unit, scope: scope, period: Period(period, at: time), id: id)
        }
    }

    package var user: String
    package var tenant: String?
    package var tier: String
    package var roles: [String]
    /// Every account that a request of this subject is charged to, each of them.
    package var accounts: [Account]
    /// What may be spent of them without a control plane; absent: nothing beyond the leases.
    package var standby: Account?
    /// What of the stored ones the tier allows now.
    package var preferences: Preferences?
    package var timeToLiveMilliseconds: Int64
    /// Not even without a control plane does it serve for longer: the rest of an API key's life.
    package var validForMilliseconds: Int64?
    /// All that the request has; those with a budget are among `accounts`.
    package var tags: [String]?

    package init(
        user: String, tenant: String?, tier: String, roles: [String], accounts: [Account],
        preferences: Preferences?, timeToLiveMilliseconds: Int64,
        validForMilliseconds: Int64? = nil, tags: Tags = .none
    ) {
        self.user = user
        self.tenant = tenant
        self.tier = tier
        self.roles = roles
        self.accounts = accounts
        self.preferences = preferences
        self.timeToLiveMilliseconds = timeToLiveMilliseconds
        self.validForMilliseconds = validForMilliseconds
        self.tags = tags.isEmpty ? nil : tags.names
    }
}

// MARK: - Idempotency

package struct IdempotencyRequest: Hashable, Sendable, Codable {
    package enum Action: Hashable, Sendable, Codable {
        /// The claim ends by itself after this long.
        case claim(milliseconds: Int64)
        case complete(StoredAnswer)
        /// Nothing was carried out, or nothing that must not be carried out again.
        case release
    }

    package var user: String
    package var key: String
    /// SHA-256 of what the key stands for, in hexadecimal.
    package var bodyHash: String
    /// Names the attempt that claims: only it gives the claim back, and it may ask twice.
    package var claim: String
    package var action: Action

    package init(user: String, key: String, bodyHash: String, claim: String, action: Action) {
        self.user = user
        self.key = key
        self.bodyHash = bodyHash
        self.claim = claim
        self.action = action
    }
}

package struct StoredAnswer: Hashable, Sendable, Codable {
    package var status: Int
    package var contentType: String
    package var body: String
    /// Further header fields, by name in lower case.
    package var fields: [String: String]

    package init(status: Int, contentType: String, body: String, fields: [String: String] = [:]) {
        self.status = status
        self.contentType = contentType
        self.body = body
        self.fields = fields
    }
}

package struct IdempotencyResponse: Hashable, Sendable, Codable {
    package enum State: String, Sendable, Codable {
        case new, stored, mismatch, released
        case inFlight = "in_flight"
    }
    package var state: State
    package var answer: StoredAnswer?

    package init(state: State, answer: StoredAnswer?) {
        self.state = state
        self.answer = answer
    }
}

/// The body of every refusal on the mesh listener.
package struct MeshRefusal: Error, Hashable, Sendable, Codable {
    package var reason: String
    package var detail: String
    /// Everything that is wrong with what was sent, where that is more than `detail` says.
    package var problems: [Problem]?
    package init(reason: String, detail: String, problems: [Problem]? = nil) {
        self.reason = reason
        self.detail = detail
        self.problems = problems
    }
}
