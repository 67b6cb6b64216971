import Foundation
import Testing
import WeirCore

/// The metrics that API.md promises, compared with what real processes expose: the names, the
/// types, exactly those labels, and the process that knows the truth and no other.
@Suite(.timeLimit(.minutes(3)), .serialized)
struct MetricsContractTests {
    private enum Exporter { case gateway, sidecar, both }

    private struct Promise {
        let name: String
        let type: String
        let labels: Set<String>
        let exporter: Exporter
    }

    private static let promises = [
        Promise(
            name: "orchestrator_requests_total", type: "counter",
            labels: ["type", "tier", "status"], exporter: .gateway),
        Promise(
            name: "orchestrator_request_duration_seconds", type: "histogram",
            labels: ["type", "tier"], exporter: .gateway),
        Promise(name: "system_health_score", type: "gauge", labels: [], exporter: .gateway),
        Promise(
            name: "agent_invocations_total", type: "counter",
            labels: ["agent", "model", "tier", "outcome"], exporter: .sidecar),
        Promise(
            name: "cost_usd_total", type: "counter", labels: ["agent", "model", "tier", "source"],
            exporter: .sidecar),
        Promise(
            name: "circuit_breaker_state", type: "gauge", labels: ["agent", "endpoint"],
            exporter: .sidecar),
        // Weir's own that dashboards are made of.
        Promise(
            name: "weir_upstream_duration_seconds", type: "histogram", labels: ["agent"],
            exporter: .sidecar),
        Promise(
            name: "weir_fallbacks_total", type: "counter", labels: ["from", "to", "reason"],
            exporter: .gateway),
        Promise(
            name: "weir_loop_lag_seconds", type: "histogram", labels: ["worker"], exporter: .both),
        Promise(
            name: "weir_control_plane_connected", type: "gauge", labels: [], exporter: .both),
        Promise(
            name: "weir_uplink_messages_total", type: "counter", labels: ["message", "outcome"],
            exporter: .both),
        Promise(
            name: "weir_uplink_round_trip_seconds", type: "histogram", labels: ["message"],
            exporter: .both),
    ]

    private func check(_ page: Exposition, _ exporter: Exporter) {
        for promise in Self.promises {
            guard promise.exporter == exporter || promise.exporter == .both else {
                #expect(page.types[promise.name] == nil, "\(promise.name) is somebody else's")
                continue
            }
            #expect(page.types[promise.name] == promise.type, "\(promise.name)")
            #expect(page.labels(of: promise.name) == [promise.labels], "\(promise.name)")
        }
    }

    @Test func `every promised metric is exposed by its process, with its labels`() async throws {
        let agents = ["finbert", "llama2-7b", "gpt4-turbo"]
        try await Mesh.run(.init(agents: agents)) { mesh in
            // The dear agent fails, so that the plan falls back to the cheap one.
            try await mesh.agents.setFault("gpt4-turbo", "fail", argument: 500)
            let answer = try await mesh.analyze(AcceptancePolicy.newsAnalysis, tier: "enterprise")
            try #require(answer.status == 200, "\(answer.text)")
            let finbert = try mesh.sidecarAdmin("finbert")
            try await eventually("each loop has measured its lag") {
                for admin in [finbert, mesh.gatewayAdmin] {
                    let lag = try await admin.metrics()
                    guard
                        ["0", "control"].allSatisfy({
                            lag.sum("weir_loop_lag_seconds_count", ["worker": $0]) > 0
                        })
                    else { return false }
                }
                return true
            }
            let gateway = try await mesh.gatewayAdmin.metrics()
            check(gateway, .gateway)
            check(try await finbert.metrics(), .sidecar)

            // And they say what happened.
            #expect(
                gateway.sum(
                    "orchestrator_requests_total",
                    ["type": "news_analysis", "tier": "enterprise", "status": "complete"]) == 1)
            #expect(gateway.sum("orchestrator_request_duration_seconds_count") == 1)
            #expect(
                gateway.sum(
                    "weir_fallbacks_total",
                    ["from": "gpt4-turbo", "to": "llama2-7b", "reason": "upstream_error"]) == 1)
            let calls = try await finbert.metrics()
            #expect(
                calls.sum(
                    "agent_invocations_total",
                    ["agent": "finbert", "tier": "enterprise", "outcome": "admitted"]) == 1)
            #expect(calls.sum("cost_usd_total", ["source": "reported"]) == 0.000120)
            #expect(
                calls.sum("weir_upstream_duration_seconds_count", ["agent": "finbert"]) == 1)
            #expect(calls.sum("circuit_breaker_state", ["agent": "finbert"]) == 0)
            #expect(calls.sum("weir_control_plane_connected") == 1)
            #expect(
                calls.sum("weir_uplink_messages_total", ["message": "report"]) > 0)
            // Nobody who pays is ever a label.
            #expect(!gateway.samples.contains { $0.labels.values.contains("alice") })
        }
    }
}
