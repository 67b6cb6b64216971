import ControlPlaneStore
import HTTPTypes
import Hummingbird
import Logging
import WeirCore
import WeirPolicy

/// What anybody on the listener may ask: whether the process lives, whether it can do its work,
/// what it counts, and what the API is.
struct HealthAPI: Sendable {
    enum State: String, Sendable { case ok, warning, failed }

    struct Check: Sendable {
        var name: String
        var state: State
        var detail: String

        var json: JSONValue {
            [
                "name": .string(name), "state": .string(state.rawValue), "detail": .string(detail),
            ]
        }
    }

    let services: ControlPlaneServices
    let openAPI: JSONValue

    func addRoutes(to table: RouteTable) {
        table.add("/healthz", [.get: { _, _ in .json(["status": "ok"]) }])
        table.add("/readyz", [.get: ready])
        table.add("/metrics", [.get: metrics])
        let document = openAPI
        table.add("/openapi.json", [.get: { _, _ in .json(document) }])
    }

    /// Ready means that messages of sidecars can be served. A policy that nobody has applied yet is
    /// no reason to take the process out of service.
    private func ready(_ request: Request, _ context: ServerContext) async throws -> Response {
        let checks = await checks()
        let isReady = !checks.contains { $0.state == .failed }
        return .json(
            [
                "status": isReady ? "ready" : "not_ready",
                "checks": .array(checks.map(\.json)),
            ],
            status: isReady ? .ok : .serviceUnavailable)
    }

    private func checks() async -> [Check] {
        var checks: [Check] = []
        do {
            let settings = try await RedisPersistence.status(of: services.redis).problems
            checks.append(Check(name: "redis", state: .ok, detail: "answers"))
            checks.append(persistence(settings))
            // What is wrong with its settings has been said.
            let others = try await services.ledger().store.check().filter { !settings.contains($0) }
            if !others.isEmpty {
                checks.append(
                    Check(
                        name: "ledger", state: .warning, detail: others.joined(separator: "; ")))
            }
        } catch let problem as APIProblem {
            checks.append(Check(name: "ledger", state: .failed, detail: problem.detail))
        } catch {
            checks.append(
                Check(name: "redis", state: .failed, detail: "cannot be reached (\(error))"))
        }
        checks.append(await archive())
        if let active = services.hub.active {
            checks.append(
                Check(
                    name: "policy", state: .ok,
                    detail: "version \(active.version), \(active.documents.count) documents"))
        } else {
            checks.append(Check(name: "policy", state: .warning, detail: "none applied yet"))
        }
        return checks
    }

    /// Without the archive, records wait in the sidecars' journals and money goes on; taking the
    /// process out of service would stop that, too.
    private func archive() async -> Check {
        do {
            try await services.archive.check()
            return Check(name: "archive", state: .ok, detail: "answers")
        } catch {
            services.logger.error("archive", metadata: ["reason": "\(error)"])
            return Check(
                name: "archive", state: .warning,
                detail: "\(error.apiProblem.detail) Records wait in the sidecars' journals.")
        }
    }

    private func persistence(_ problems: [String]) -> Check {
        guard !problems.isEmpty else {
            return Check(name: "persistence", state: .ok, detail: "acknowledged writes are kept")
        }
        let words = problems.joined(separator: "; ")
        return services.isTrial
            ? Check(name: "persistence", state: .warning, detail: "\(words) (this is a trial)")
            : Check(name: "persistence", state: .failed, detail: "\(words): no money is granted")
    }

    private func metrics(_ request: Request, _ context: ServerContext) async throws -> Response {
        let version = services.hub.active?.version
        let gauges = [
            ServerMetrics.Gauge(
                name: "weir_control_plane_policy_version",
                help: "The number of the active policy, 0 for none.",
                values: [("", version?.number ?? 0)]),
            ServerMetrics.Gauge(
                name: "weir_control_plane_policy_watchers",
                help: "Sidecars and gateways that watch the policy here.",
                values: [("", Int64(services.hub.watcherCount))]),
            ServerMetrics.Gauge(
                name: "weir_control_plane_missing_holders",
                help: "Holders for which maxLease of each account is withheld.",
                values: [("", Int64((try? services.ledger().store.missingHolders) ?? 0))]),
        ]
        return .text(
            services.metrics.text(gauges), contentType: "text/plain; version=0.0.4; charset=utf-8")
    }
}
