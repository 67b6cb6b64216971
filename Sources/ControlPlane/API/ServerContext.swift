import HTTPTypes
import Hummingbird
import Logging
import WeirCore
import WeirLedger

/// What the listeners know of one request.
package struct ServerContext: RequestContext {
    package var coreContext: CoreRequestContextStorage
    /// On the mesh listener, behind `MeshSessionMiddleware`: who asks.
    var peer: MeshPeer?

    package init(source: Source) { coreContext = CoreRequestContextStorage(source: source) }
}

extension ServerContext {
    /// The route's pattern, which metrics may carry; a path may not, for there are endlessly many.
    var route: String { endpointPath ?? "other" }
}

/// Routes by path, each with all of its methods, so that another method is answered with 405 and
/// what is allowed, and not with 404 as if the path were not there.
struct RouteTable {
    typealias Handler = @Sendable (Request, ServerContext) async throws -> Response

    /// All that are registered for HTTP's own use, and QUERY; CONNECT has no path.
    private static let methods: [HTTPRequest.Method] =
        [.get, .head, .put, .post, .patch, .delete, .options, .trace]
        + ["QUERY"].compactMap { HTTPRequest.Method($0) }

    let router: Router<ServerContext>

    func add(_ path: String, _ handlers: [HTTPRequest.Method: Handler]) {
        var handlers = handlers
        // HEAD is GET without the body (RFC 9110 §9.3.2); load balancers ask so.
        if let get = handlers[.get] {
            handlers[.head] = { request, context in
                let response = try await get(request, context)
                return Response(status: response.status, headers: response.headers)
            }
        }
        let allowed = Array(handlers.keys)
        for method in Self.methods {
            guard let handler = handlers[method] else {
                router.on(RouterPath(path), method: method) { _, _ -> Response in
                    throw APIProblem.method(allowed: allowed)
                }
                continue
            }
            router.on(RouterPath(path), method: method) { request, context in
                try await handler(request, context)
            }
        }
    }
}
