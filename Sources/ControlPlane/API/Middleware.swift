import HTTPTypes
import Hummingbird
import Logging
import NIOCore
import WeirCore
import WeirMeshProtocol

/// Turns every error into a refusal in the listener's own form. Stands outermost but for the
/// metrics, so that nothing leaves as a bare status.
struct ErrorMiddleware: RouterMiddleware {
    enum Form: Sendable {
        /// RFC 9457, for people and the CLI.
        case problem
        /// `MeshRefusal`, for sidecars.
        case mesh
    }

    typealias Context = ServerContext
    let form: Form

    func handle(
        _ request: Request, context: Context,
        next: @concurrent (Request, Context) async throws -> Response
    ) async throws -> Response {
        do {
            return try await next(request, context)
        } catch {
            let problem = Self.problem(for: error, request)
            if problem.status.code >= 500 {
                context.logger.warning(
                    "refused",
                    metadata: [
                        "path": "\(request.uri.path)", "status": "\(problem.status.code)",
                        "reason": "\(error)",
                    ])
            }
            return render(problem)
        }
    }

    private func render(_ problem: APIProblem) -> Response {
        switch form {
        case .problem: return problem.response
        case .mesh:
            var object: JSONObject = [
                "reason": .string(problem.reason), "detail": .string(problem.detail),
            ]
            if !problem.problems.isEmpty {
                object["problems"] = .array(problem.problems.map(\.json))
            }
            var response = Response.json(.object(object), status: problem.status)
            for field in problem.headers { response.headers[field.name] = field.value }
            return response
        }
    }

    static func problem(for error: any Error, _ request: Request) -> APIProblem {
        switch error {
        case let problem as APIProblem: return problem
        case let problem as any APIProblemConvertible: return problem.apiProblem
        case let error as HTTPError where error.status == .notFound:
            return APIProblem(
                status: .notFound, reason: Reason.unknownRoute.name,
                title: Reason.unknownRoute.title,
                detail: "There is nothing at \(request.uri.path.prefix(256)).")
        case let error as any HTTPResponseError where error.status.code < 500:
            return APIProblem(
                status: error.status, reason: Reason.malformed.name,
                title: error.status.reasonPhrase, detail: "The request cannot be taken.")
        default: return .internalError
        }
    }
}

/// Errors of the store that have a status of their own.
protocol APIProblemConvertible: Error {
    var apiProblem: APIProblem { get }
}

/// Lets only the administrator's token through.
struct AdministratorMiddleware: RouterMiddleware {
    typealias Context = ServerContext
    let token: AccessToken

    func handle(
        _ request: Request, context: Context,
        next: @concurrent (Request, Context) async throws -> Response
    ) async throws -> Response {
        guard let given = AccessToken.bearer(in: request.headers[.authorization]) else {
            throw APIProblem.unauthenticated("The administrator's bearer token is needed.")
        }
        guard token.matches(given) else {
            throw APIProblem.unauthenticated("This is not the administrator's token.")
        }
        return try await next(request, context)
    }
}

/// Counts and times what a listener answers.
struct MetricsMiddleware: RouterMiddleware {
    typealias Context = ServerContext
    let listener: String
    let metrics: ServerMetrics

    func handle(
        _ request: Request, context: Context,
        next: @concurrent (Request, Context) async throws -> Response
    ) async throws -> Response {
        let start = ContinuousClock.now
        let response = try await next(request, context)
        let elapsed = ContinuousClock.now - start
        metrics.answered(
            listener: listener, method: request.method.rawValue, route: context.route,
            status: response.status.code, elapsed)
        context.logger.debug(
            "answered",
            metadata: [
                "method": "\(request.method.rawValue)", "path": "\(request.uri.path)",
                "status": "\(response.status.code)",
            ])
        return response
    }
}
