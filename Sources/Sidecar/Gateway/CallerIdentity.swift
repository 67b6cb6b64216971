import SidecarCore
import WeirCore
import WeirCrypto
import WeirMeshProtocol
import WeirPolicy

/// Who asks: a token is verified here, and the control plane says whom it stands for and what the
/// caller may do.
struct CallerIdentity: Sendable {
    /// A caller, and what pays for it.
    struct Known: Sendable {
        let caller: Caller
        let binding: SubjectBinding
    }

    let verifier: TokenVerifier
    let bind: @Sendable (SubjectRequest) async -> CallerBinding

    /// Refuses a caller without the role that the request's endpoint needs.
    func identify(
        _ request: GatewayRequest, snapshot: GatewaySnapshot, now: UnixTime
    ) async throws(GatewayRefusal) -> Known {
        var subject = try authenticate(request, now: now)
        subject.tags = try Self.tags(request)?.names
        let binding = try await binding(of: subject)
        guard let tier = snapshot.policy.tiers[binding.tier] else {
            throw GatewayRefusal(.forbidden, "The policy has no tier \(binding.tier).")
        }
        var caller = Caller(
            user: binding.user, tenant: binding.tenant, tier: tier, roles: binding.roles,
            preferences: binding.preferences ?? Preferences())
        if let hash = subject.apiKeyHash { caller.knownBy = .apiKey(hash: hash) }
        caller.tags = Tags(binding.tags ?? []) ?? .none
        try EndpointAccess.check(caller.role, for: request.endpoint)
        return Known(caller: caller, binding: binding)
    }

    /// A token is verified here; an API key only the control plane knows, and only by its hash.
    private func authenticate(
        _ request: GatewayRequest, now: UnixTime
    ) throws(GatewayRefusal) -> SubjectRequest {
        guard let value = request.field("authorization") else {
            throw GatewayRefusal(.unauthenticated, "A bearer token is required.")
        }
        let parts = value.split(separator: " ", omittingEmptySubsequences: false)
        guard parts.count == 2, parts[0].lowercased() == "bearer" else {
            throw GatewayRefusal(.unauthenticated, "A bearer token is required.")
        }
        let credential = String(parts[1])
        if credential.hasPrefix(Self.apiKeyPrefix) { return try apiKey(credential) }
        do throws(TokenRefusal) {
            let claims = try verifier.verify(credential, now: now)
            return SubjectRequest(
                claims: .init(
                    subject: claims.subject, tier: claims.tier, tenant: claims.tenant,
                    roles: claims.roles, tags: claims.tags), apiKeyHash: nil)
        } catch {
            throw GatewayRefusal(error.reason, error.detail)
        }
    }

    /// What the caller labels this request with; the control plane says whether it may.
    private static func tags(_ request: GatewayRequest) throws(GatewayRefusal) -> Tags? {
        guard request.fields.contains(where: { $0.name == tagsField }) else { return nil }
        guard let list = request.field(tagsField), let tags = Tags(list: list) else {
            throw GatewayRefusal(
                .invalid,
                "\(tagsField) takes at most \(Tags.countMax) tags of letters, digits and . _ : / "
                    + "@ - with commas, of at most \(Tags.nameBytesMax) bytes each and "
                    + "\(Tags.textBytesMax) together, in one field.")
        }
        return tags
    }

    static let tagsField = "weir-tags"

    /// No token begins so: its first part is an object in base64url.
    private static let apiKeyPrefix = "weir_"

    private func apiKey(_ text: String) throws(GatewayRefusal) -> SubjectRequest {
        guard text.utf8.count <= GatewayLimits.apiKeyBytesMax else {
            throw GatewayRefusal(.unauthenticated, "The API key is too long.")
        }
        return SubjectRequest(
            claims: nil, apiKeyHash: Hex.encode(Crypto.sha256(Array(text.utf8))))
    }

    private func binding(
        of request: SubjectRequest
    ) async throws(GatewayRefusal) -> SubjectBinding {
        switch await bind(request) {
        case .bound(let binding): return binding
        case .refused(let reason, let detail): throw GatewayRefusal(reason, detail)
        case .unavailable:
            throw GatewayRefusal(
                .controlPlaneLost, "The caller's account cannot be looked up now.",
                retryAfterSeconds: 1)
        }
    }
}
