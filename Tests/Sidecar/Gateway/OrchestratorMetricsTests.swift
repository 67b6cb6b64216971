import Testing
import WeirCore

@testable import SidecarCore
@testable import SidecarGateway

@Suite struct OrchestratorMetricsTests {
    @Test func countsRequestsByTheirOutcome() throws {
        let registry = Metrics()
        let metrics = OrchestratorMetrics(registry, score: { 0.75 })
        for status in ["complete", "complete", "budget_exhausted"] {
            metrics.analysisEnded(
                type: "news", tier: "gold", status: status, nanoseconds: 3_000_000)
        }
        let text = String(decoding: registry.exposition(), as: UTF8.self)
        for line in [
            #"orchestrator_requests_total{type="news",tier="gold",status="complete"} 2"#,
            #"orchestrator_requests_total{type="news",tier="gold",status="budget_exhausted"} 1"#,
            #"orchestrator_request_duration_seconds_count{type="news",tier="gold"} 3"#,
            "system_health_score 0.75",
        ] {
            #expect(text.contains(line + "\n"), "\(text)")
        }
    }

    @Test func countsWhereStepsWentInstead() {
        let registry = Metrics()
        let metrics = OrchestratorMetrics(registry, score: { 1 })
        for change in [
            RoutingChange(kind: .fallback, from: "a", to: "b", reason: "upstream_error"),
            RoutingChange(kind: .fallback, from: "a", to: "b", reason: "upstream_error"),
            RoutingChange(kind: .downgrade, from: "a", to: "c", reason: "preferred"),
        ] {
            metrics.routingChanged(change)
        }
        let text = String(decoding: registry.exposition(), as: UTF8.self)
        for line in [
            #"weir_fallbacks_total{from="a",to="b",reason="upstream_error"} 2"#,
            #"weir_downgrades_total{from="a",to="c",reason="preferred"} 1"#,
        ] {
            #expect(text.contains(line + "\n"), "\(text)")
        }
    }

    @Test func theScoreIsTheShareOfAgentsThatAreServed() throws {
        #expect(GatewayHealth.score(nil) == 0)
        #expect(GatewayHealth.score(try GatewayFixture.snapshot()) == 1)
        let one = try GatewayFixture.snapshot(without: ["mood"])
        #expect(GatewayHealth.score(one) == 0.75)
    }
}
