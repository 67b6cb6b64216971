import ControlPlaneStore
import HTTPTypes
import Hummingbird
import Logging
import NIOCore
import WeirCore
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

/// What sidecars say (`MeshPath`), each message decoded, bounded and handed to the store. The
/// session names the incarnation that speaks; no message can speak for another one.
struct MeshAPI: Sendable {
    let services: ControlPlaneServices

    func addRoutes(to router: Router<ServerContext>) {
        RouteTable(router: router).add(MeshPath.join, [.post: join])
        // Everything else needs the session that a join gave.
        router.add(middleware: MeshSessionMiddleware(services: services))
        let table = RouteTable(router: router)
        table.add(MeshPath.policy, [.get: PolicyPush(services: services).respond])
        table.add(MeshPath.ack, [.post: acknowledge])
        table.add(MeshPath.leases, [.post: leases])
        table.add(MeshPath.report, [.post: report])
        table.add(MeshPath.records, [.post: records])
        table.add(MeshPath.subject, [.post: subject])
        table.add(MeshPath.idempotency, [.post: idempotency])
        table.add(MeshPath.state, [.get: state])
        UserAPI(services: services).addRoutes(to: table)
    }

    // MARK: - Join

    private func join(_ request: Request, _ context: ServerContext) async throws -> Response {
        let message = try await request.message(JoinRequest.self)
        try Self.check(message)
        let ledger = try services.ledger()
        try await services.joinTokens.admit(message)
        let response = try await ledger.store.join(message, replicas: services.replicas)
        services.peers.remember(
            MeshPeer(
                incarnation: response.incarnation, role: message.role, agent: message.agent))
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

    /// What is needed of a join beyond what `JoinTokens` looks at.
    private static func check(_ message: JoinRequest) throws {
        var problems: [Problem] = []
        if message.role == .agent {
            if message.agent?.isEmpty ?? true {
                problems.append(Problem(path: "/agent", message: "is missing"))
            }
            if message.endpoint.flatMap({ ListenAddress($0) }) == nil {
                problems.append(Problem(path: "/endpoint", message: "host:port is needed"))
            }
            if let version = message.agentVersion,
                !(1...PolicyLimits.nameBytesMax).contains(version.utf8.count)
            {
                problems.append(
                    Problem(
                        path: "/agentVersion",
                        message: "must have 1 to \(PolicyLimits.nameBytesMax) bytes"))
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

    private func acknowledge(_ request: Request, _ context: ServerContext) async throws -> Response
    {
        let peer = try context.mustHavePeer()
        let ack = try await request.message(PolicyAck.self)
        let alarm = try await services.sidecars.acknowledge(
            ack, by: peer.incarnation, active: services.hub.active?.version)
        if let alarm {
            context.logger.critical(
                "policy alarm", metadata: ["sidecar": "\(peer.name)", "reason": "\(alarm)"])
        }
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
        let message = try await request.message(LeasesRequest.self)
        try Self.bound("acquire", message.acquire.count, MeshLimits.leasesPerMessageMax)
        try Self.bound("release", message.release.count, MeshLimits.leasesPerMessageMax)
        let store = try services.ledger().store
        try await store.release(message.release, by: peer.incarnation)
        let active = services.hub.active
        let response = try await store.acquire(
            message.acquire, by: peer.incarnation, policyNumber: active?.version.number ?? 0,
            mayObserve: active?.policy.observesAnyTier ?? false)
        return try Self.answer(response)
    }

    private func report(_ request: Request, _ context: ServerContext) async throws -> Response {
        let peer = try context.mustHavePeer()
        let message = try await request.message(Report.self)
        try Self.bound("leases", message.leases.count, MeshLimits.leasesPerMessageMax)
        try Self.bound("childFinals", message.childFinals.count, MeshLimits.finalsPerMessageMax)
        try Self.bound(
            "acknowledgedFinals", message.acknowledgedFinals.count, MeshLimits.finalsPerMessageMax)
        try Self.bound(
            "openChildren", message.openChildren.count, MeshLimits.inquiriesPerMessageMax)
        let store = try services.ledger().store
        guard try await services.sidecars.heartbeat(message.health, by: peer.incarnation) else {
            throw APIProblem.unauthenticated("The incarnation is unknown; join again.")
        }
        let response = try await store.report(message, by: peer.incarnation)
        return try Self.answer(response)
    }

    private func records(_ request: Request, _ context: ServerContext) async throws -> Response {
        let peer = try context.mustHavePeer()
        let bytes = try await request.bytes(max: ServerLimits.meshBodyBytesMax)
        guard let blocks = RecordBlock.readAll(bytes), !blocks.isEmpty else {
            throw APIProblem.badRequest("The body is not one or more blocks of records.")
        }
        // A successor ships what its predecessors left behind, in messages of their own; the
        // archive keeps each (incarnation, sequence) once, whoever brings it.
        let owner = blocks[0].incarnation
        guard blocks.allSatisfy({ $0.incarnation == owner }), owner <= peer.incarnation else {
            throw APIProblem.badRequest("One message carries the records of one incarnation.")
        }
        let stored = try await services.archive.store(blocks)
        return try Self.answer(RecordsResponse(storedThrough: stored[owner] ?? 0))
    }

    private func subject(_ request: Request, _ context: ServerContext) async throws -> Response {
        try context.mustHaveGateway()
        let message = try await request.message(SubjectLookup.self)
        try Self.bound(
            "acquire", message.acquire.count, LedgerLimits.accountsPerReservationMax)
        guard let active = services.hub.active else {
            throw APIProblem.unavailable("There is no policy yet, so there are no tiers.")
        }
        do {
            let opening = SubjectStore.Opening(
                acquire: message.acquire, holder: try context.mustHavePeer().incarnation,
                mayObserve: active.policy.observesAnyTier)
            return try Self.answer(
                try await services.ledger().subjects.resolve(
                    message.subject, opening: opening, policy: active.policy,
                    policyNumber: active.version.number))
        } catch let refusal as MeshRefusal {
            // Whatever it is about the user, the gateway's session is well: 401 would end it.
            var problem = refusal.apiProblem
            problem.status = .forbidden
            throw problem
        }
    }

    private func idempotency(_ request: Request, _ context: ServerContext) async throws -> Response
    {
        try context.mustHaveGateway()
        let message = try await request.message(IdempotencyRequest.self)
        return try Self.answer(try await services.idempotency.handle(message))
    }

    private func state(_ request: Request, _ context: ServerContext) async throws -> Response {
        try context.mustHaveGateway()
        return .json(try await services.meshState.current())
    }

    // MARK: - Parts

    private static func bound(_ name: String, _ count: Int, _ countMax: Int) throws {
        guard count <= countMax else {
            throw APIProblem.badRequest("\(name) has \(count) entries, more than \(countMax).")
        }
    }

    private static func answer(_ message: some Encodable) throws -> Response {
        .json(try JSON.encodeValue(message))
    }
}

extension Request {
    /// The body as one message of the mesh.
    func message<T: Decodable & Sendable>(_ type: T.Type) async throws -> T {
        let bytes = try await bytes(max: ServerLimits.meshBodyBytesMax)
        do {
            return try JSON.decode(type, from: bytes)
        } catch let error as JSONError {
            throw APIProblem.badRequest("The body is not JSON: \(error).")
        } catch {
            throw APIProblem.badRequest("The body is no \(type): \(JSON.problem(from: error)).")
        }
    }
}
