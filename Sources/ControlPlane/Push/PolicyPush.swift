import HTTPTypes
import Hummingbird
import NIOCore
import WeirCore
import WeirMeshProtocol

/// `GET /mesh/v1/policy`: the caller's projection as one line of JSON; with `?watch` the answer
/// goes on with every later one, and a bookmark in between, until either side ends it. `hash` names
/// the projection that the caller holds, which is then not sent again.
struct PolicyPush: Sendable {
    let services: ControlPlaneServices

    func respond(_ request: Request, _ context: ServerContext) async throws -> Response {
        let peer = try context.mustHavePeer()
        let audience = peer.audience
        let held = request.query("hash")
        let hub = services.hub
        guard request.uri.queryParameters["watch"] != nil else {
            let line = hub.line(for: audience)?.buffer ?? hub.bookmark
            return Self.stream(ResponseBody(byteBuffer: line))
        }
        // Refused as a status while that is still possible.
        guard hub.hasRoom else { throw APIProblem.unavailable("Too many watches, or stopping.") }
        return Self.stream(
            ResponseBody { writer in
                try await Self.watch(hub, peer, held: held, &writer)
                try await writer.finish(nil)
            })
    }

    private static func stream(_ body: ResponseBody) -> Response {
        Response(
            status: .ok,
            headers: [.contentType: "application/x-ndjson", .cacheControl: "no-store"], body: body)
    }

    /// Registered first and looked at after, so that no change falls between the two.
    @concurrent private static func watch(
        _ hub: PolicyHub, _ peer: MeshPeer, held: String?,
        _ writer: inout any ResponseBodyWriter
    ) async throws {
        guard let watch = hub.watch(peer.incarnation, isGateway: peer.role == .gateway) else {
            return
        }
        let audience = peer.audience
        defer { hub.end(watch) }
        var sent = held
        if try await !send(hub, audience, &sent, &writer) { try await writer.write(hub.bookmark) }
        for await wake in watch.wakes {
            var hasSent = try await send(hub, audience, &sent, &writer)
            let notices = hub.takeNotices(watch)
            if !notices.recalls.isEmpty {
                try await writer.write(PolicyLine.recall(notices.recalls))
                hasSent = true
            }
            if notices.hasMissedSubjects {
                try await writer.write(PolicyLine.everySubject)
                hasSent = true
            } else if !notices.subjects.isEmpty {
                try await writer.write(PolicyLine.subjects(notices.subjects))
                hasSent = true
            }
            if !hasSent, wake == .tick { try await writer.write(hub.bookmark) }
        }
    }

    /// The newest projection, if it is another one than the last sent. Waits while the reader is
    /// slow, and what changes meanwhile is not queued.
    @concurrent private static func send(
        _ hub: PolicyHub, _ audience: Audience, _ sent: inout String?,
        _ writer: inout any ResponseBodyWriter
    ) async throws -> Bool {
        guard let line = hub.line(for: audience), line.hash != sent else { return false }
        try await writer.write(line.buffer)
        sent = line.hash
        return true
    }
}
