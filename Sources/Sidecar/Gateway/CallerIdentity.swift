import WeirCore
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
        let claims = try authenticate(request, now: now)
        let binding = try await binding(of: claims)
        guard let tier = snapshot.policy.tiers[binding.tier] else {
            throw GatewayRefusal(.forbidden, "The policy has no tier \(binding.tier).")
        }
        let caller = Caller(
            user: binding.user, tenant: binding.tenant, tier: tier, roles: binding.roles,
            preferences: binding.preferences ?? Preferences())
        try EndpointAccess.check(caller.role, for: request.endpoint)
        return Known(caller: caller, binding: binding)
    }

    private func authenticate(
        _ request: GatewayRequest, now: UnixTime
    ) throws(GatewayRefusal) -> TokenClaims {
        guard let value = request.field("authorization") else {
            throw GatewayRefusal(.unauthenticated, "A bearer token is required.")
        }
        let parts = value.split(separator: " ", omittingEmptySubsequences: false)
        guard parts.count == 2, parts[0].lowercased() == "bearer" else {
            throw GatewayRefusal(.unauthenticated, "A bearer token is required.")
        }
        do throws(TokenRefusal) {
            return try verifier.verify(String(parts[1]), now: now)
        } catch {
            throw GatewayRefusal(error.reason, error.detail)
        }
    }

    private func binding(of claims: TokenClaims) async throws(GatewayRefusal) -> SubjectBinding {
        let request = SubjectRequest(
            claims: .init(
                subject: claims.subject, tier: claims.tier, tenant: claims.tenant,
                roles: claims.roles), apiKeyHash: nil)
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
