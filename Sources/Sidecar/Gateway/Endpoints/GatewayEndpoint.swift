/// One of the gateway's own endpoints. A refusal that it throws becomes a problem document.
package protocol GatewayEndpoint: Sendable {
    /// As in `/agents/performance/{agent}`: a segment in braces takes any one segment.
    var path: String { get }
    /// Without OPTIONS, which every endpoint has.
    var methods: [String] { get }

    func respond(
        to request: GatewayRequest, on worker: GatewayWorker
    ) async throws(GatewayRefusal) -> GatewayAnswer
}

/// Finds the endpoint of a path. Made once; paths without parameters are looked up, the others
/// tried in order.
struct EndpointTable: Sendable {
    private struct Pattern: Sendable {
        let segments: [Substring]
        let endpoint: any GatewayEndpoint
    }

    private var exact: [String: any GatewayEndpoint] = [:]
    private var patterns: [Pattern] = []
    /// That some endpoint has, each once.
    private(set) var methods: [String] = []

    init(_ endpoints: [any GatewayEndpoint]) {
        for endpoint in endpoints {
            precondition(
                EndpointAccess.isStated(endpoint.path),
                "who may call \(endpoint.path) stands in no table")
            methods += endpoint.methods.filter { !methods.contains($0) }
            if endpoint.path.contains("{") {
                let segments = endpoint.path.split(separator: "/")
                patterns.append(Pattern(segments: segments, endpoint: endpoint))
            } else {
                exact[endpoint.path] = endpoint
            }
        }
    }

    /// The endpoint and the values of its path's parameters, as they stand in the path.
    func endpoint(
        for path: String
    ) -> (endpoint: any GatewayEndpoint, parameters: [String: String])? {
        if let endpoint = exact[path] { return (endpoint, [:]) }
        let segments = path.split(separator: "/", omittingEmptySubsequences: false).dropFirst()
        for pattern in patterns where pattern.segments.count == segments.count {
            if let parameters = Self.match(pattern.segments, segments) {
                return (pattern.endpoint, parameters)
            }
        }
        return nil
    }

    private static func match(
        _ pattern: [Substring], _ segments: ArraySlice<Substring>
    ) -> [String: String]? {
        var parameters: [String: String] = [:]
        for (expected, actual) in zip(pattern, segments) {
            if expected.hasPrefix("{") {
                guard !actual.isEmpty else { return nil }
                parameters[String(expected.dropFirst().dropLast())] = String(actual)
            } else if expected != actual {
                return nil
            }
        }
        return parameters
    }
}
