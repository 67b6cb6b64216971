import ControlPlaneStore
import Hummingbird
import Synchronization
import WeirCore
import WeirLedger
import WeirMeshProtocol

/// A sidecar that has joined, as its session says.
struct MeshPeer: Hashable, Sendable {
    var incarnation: Incarnation
    var role: Role
    var agent: String?

    var name: String { "\(agent ?? role.rawValue)#\(incarnation)" }

    var audience: Audience { agent.map { .agent($0) } ?? .gateway }
}

extension ServerContext {
    /// Who asks; the middleware makes sure that it is known.
    func mustHavePeer() throws -> MeshPeer {
        guard let peer else { throw APIProblem.unauthenticated("A session is needed.") }
        return peer
    }

    /// Only a gateway speaks for users.
    func mustHaveGateway() throws {
        guard try mustHavePeer().role == .gateway else {
            throw APIProblem(
                status: .forbidden, reason: Reason.forbidden.name, title: Reason.forbidden.title,
                detail: "Only gateways assert subjects.")
        }
    }
}

/// Who an incarnation is. That never changes, so it is remembered; whether it still may speak for
/// itself the ledger looks at with every message.
final class PeerTable: Sendable {
    private let sidecars: SidecarRegistry
    private let known = Mutex([Incarnation: MeshPeer]())

    init(sidecars: SidecarRegistry) { self.sidecars = sidecars }

    /// `nil` for an incarnation that is gone or was succeeded.
    func peer(_ incarnation: Incarnation) async throws -> MeshPeer? {
        if let peer = known.withLock({ $0[incarnation] }) { return peer }
        guard let status = try await sidecars.status(of: incarnation) else { return nil }
        let peer = MeshPeer(incarnation: incarnation, role: status.role, agent: status.agent)
        remember(peer)
        return peer
    }

    func remember(_ peer: MeshPeer) {
        known.withLock { known in
            // Old ones are asked for again; that is cheaper than to keep an order.
            if known.count >= ServerLimits.sessionsMax { known = [:] }
            known[peer.incarnation] = peer
        }
    }
}

/// Lets only those through that have joined.
struct MeshSessionMiddleware: RouterMiddleware {
    typealias Context = ServerContext
    let services: ControlPlaneServices

    func handle(
        _ request: Request, context: Context,
        next: @concurrent (Request, Context) async throws -> Response
    ) async throws -> Response {
        guard let token = AccessToken.bearer(in: request.headers[.authorization]) else {
            throw APIProblem.unauthenticated("A session is needed: join first.")
        }
        guard let incarnation = try services.ledger().sessions.incarnation(ofToken: token),
            let peer = try await services.peers.peer(incarnation)
        else {
            throw APIProblem.unauthenticated("The session is unknown; join again.")
        }
        var context = context
        context.peer = peer
        return try await next(request, context)
    }
}
