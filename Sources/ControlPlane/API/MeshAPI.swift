import ControlPlaneStore
import HTTPTypes
import Hummingbird
import NIOCore
import WeirCore
import WeirLedger
import WeirMeshProtocol

/// What sidecars say (`MeshPath`), each message decoded, bounded and handed to the store. The
/// session names the incarnation that speaks; no message can speak for another one.
struct MeshAPI: Sendable {
    let services: ControlPlaneServices
    let joinToken: AccessToken

    func addRoutes(to router: Router<ServerContext>) {
        RouteTable(router: router).add(MeshPath.join, [.post: join])
        // Everything else needs the session that a join gave.
        router.add(middleware: MeshSessionMiddleware(sessions: services.sessionTable))
        let table = RouteTable(router: router)
        table.add(MeshPath.policy, [.get: PolicyPush(services: services).respond])
        table.add(MeshPath.ack, [.post: acknowledge])
        table.add(MeshPath.leases, [.post: leases])
        table.add(MeshPath.report, [.post: report])
        table.add(MeshPath.records, [.post: records])
        table.add(MeshPath.subject, [.post: subject])
        table.add(MeshPath.idempotency, [.post: idempotency])
    }

    // MARK: - Join

    private func join(_ request: Request, _ context: ServerContext) async throws -> Response {
        let message = try await decode(JoinRequest.self, request)
        guard joinToken.matches(message.credential) else {
            throw APIProblem.unauthenticated("This is not the join token.")
        }
        try Self.check(message)
        let response = try await services.ledger.join(message)
        context.logger.info(
            "joined",
            metadata: [
                "incarnation": "\(response.incarnation)", "role": "\(message.role.rawValue)",
                "agent": "\(message.agent ?? "-")", "instance": "\(message.instance)",
            ])
        // Gateways are to know the new endpoint at once; if the look fails, the poll makes up.
        if message.role == .agent { try? await services.watcher.refresh() }
        return try Self.answer(response)
    }

    private static func check(_ message: JoinRequest) throws {
        guard message.protocolVersions.contains(MeshLimits.protocolVersion) else {
            throw APIProblem(
                status: .badRequest, reason: "protocol_version", title: "No common protocol",
                detail: "This control plane speaks version \(MeshLimits.protocolVersion).")
        }
        var problems: [Problem] = []
        func bound(_ path: String, _ text: String?) {
            guard let text else { return }
            if text.isEmpty || text.utf8.count > StoreLimits.nameBytesMax {
                problems.append(
                    Problem(
                        path: path, message: "1 to \(StoreLimits.nameBytesMax) bytes are needed"))
            }
        }
        bound("/instance", message.instance)
        bound("/agent", message.agent)
        bound("/endpoint", message.endpoint)
        if message.role == .agent {
            if message.agent == nil { problems.append(Problem(path: "/agent", message: "missing")) }
            if message.endpoint.flatMap({ ListenAddress($0) }) == nil {
                problems.append(Problem(path: "/endpoint", message: "host:port is needed"))
            }
        }
        guard problems.isEmpty else {
            throw APIProblem(
                status: .unprocessableContent, reason: Reason.invalid.name,
                title: Reason.invalid.title, detail: "The join cannot be taken.",
                problems: problems)
        }
    }

    // MARK: - Messages

    private func acknowledge(_ request: Request, _ context: ServerContext) async throws -> Response {
        let peer = try context.mustHavePeer()
        let ack = try await decode(PolicyAck.self, request)
        try await services.sidecars.acknowledge(ack, by: peer.incarnation)
        if !ack.applied {
            context.logger.error(
                "policy refused",
                metadata: [
                    "sidecar": "\(peer.name)", "version": "\(ack.version)",
                    "problems": "\(ack.problems.prefix(5).map(\.description))",
                ])
        }
        return Response(status: .noContent)
    }

    private func leases(_ request: Request, _ context: ServerContext) async throws -> Response {
        let peer = try context.mustHavePeer()
        let message = try await decode(LeasesRequest.self, request)
        try Self.bound("acquire", message.acquire.count, MeshLimits.leasesPerMessageMax)
        try Self.bound("release", message.release.count, MeshLimits.leasesPerMessageMax)
        return try Self.answer(try await services.ledger.leases(message, by: peer.incarnation))
    }

    private func report(_ request: Request, _ context: ServerContext) async throws -> Response {
        let peer = try context.mustHavePeer()
        let message = try await decode(Report.self, request)
        try Self.bound("leases", message.leases.count, MeshLimits.leasesPerMessageMax)
        try Self.bound("childFinals", message.childFinals.count, MeshLimits.finalsPerMessageMax)
        try Self.bound(
            "acknowledgedFinals", message.acknowledgedFinals.count, MeshLimits.finalsPerMessageMax)
        let response = try await services.ledger.report(message, by: peer.incarnation)
        return try Self.answer(response)
    }

    private func records(_ request: Request, _ context: ServerContext) async throws -> Response {
        let peer = try context.mustHavePeer()
        let bytes = try await request.bytes(max: ServerLimits.meshBodyBytesMax)
        guard let blocks = RecordBlock.readAll(bytes), !blocks.isEmpty else {
            throw APIProblem.badRequest("The body is not one or more blocks of records.")
        }
        // A successor ships what its predecessors left behind, so other incarnations' blocks are
        // taken too; the archive keeps each (incarnation, sequence) once.
        let stored = try await services.archive.store(blocks, for: peer.incarnation)
        return try Self.answer(RecordsResponse(storedThrough: stored))
    }

    private func subject(_ request: Request, _ context: ServerContext) async throws -> Response {
        let peer = try context.mustHavePeer()
        guard peer.role == .gateway else {
            throw APIProblem(
                status: .forbidden, reason: Reason.forbidden.name, title: Reason.forbidden.title,
                detail: "Only gateways assert subjects.")
        }
        let message = try await decode(SubjectRequest.self, request)
        guard let active = services.hub.active else {
            throw APIProblem.unavailable("There is no policy yet, so there are no tiers.")
        }
        return try Self.answer(try await services.subjects.resolve(message, policy: active.policy))
    }

    private func idempotency(_ request: Request, _ context: ServerContext) async throws -> Response {
        let peer = try context.mustHavePeer()
        let message = try await decode(IdempotencyRequest.self, request)
        return try Self.answer(
            try await services.idempotency.handle(message, by: peer.incarnation))
    }

    // MARK: - Parts

    private func decode<T: Decodable & Sendable>(
        _ type: T.Type, _ request: Request
    ) async throws -> T {
        let bytes = try await request.bytes(max: ServerLimits.meshBodyBytesMax)
        do {
            return try JSON.decode(type, from: bytes)
        } catch let error as JSONError {
            throw APIProblem.badRequest("The body is not JSON: \(error).")
        } catch {
            throw APIProblem.badRequest("The body is no \(type): \(JSON.problem(from: error)).")
        }
    }

    private static func bound(_ name: String, _ count: Int, _ countMax: Int) throws {
        guard count <= countMax else {
            throw APIProblem.badRequest("\(name) has \(count) entries, more than \(countMax).")
        }
    }

    private static func answer(_ message: some Encodable) throws -> Response {
        .json(try JSON.encodeValue(message))
    }
}

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
}
