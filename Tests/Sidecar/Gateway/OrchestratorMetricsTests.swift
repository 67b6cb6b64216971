import Testing
import WeirCore
import WeirMeshProtocol

@testable import SidecarCore
@testable import SidecarGateway

@Suite struct OrchestratorMetricsTests {
    @Test func countsRequestsByTheirOutcome() throws {
        let registry = Metrics()
        let metrics = OrchestratorMetrics(SidecarMetrics(registry), score: { 0.75 })
        metrics.observed([.rateLimited, .budgetExhausted], tier: "gold")
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
            #"weir_observed_total{agent="-",tier="gold",reason="budget_exhausted"} 1"#,
        ] {
            #expect(text.contains(line + "\n"), "\(text)")
        }
    }

    @Test func theLastMinuteIsInTheVitals() throws {
        let metrics = OrchestratorMetrics(SidecarMetrics(Metrics()), score: { 1 })
        metrics.analysisEnded(type: "news", tier: "gold", status: "complete", nanoseconds: 1)
        metrics.look(nowNanoseconds: 1_000_000_000)
        metrics.analysisEnded(type: "news", tier: "gold", status: "complete", nanoseconds: 1)
        metrics.analysisEnded(type: "wide", tier: "gold", status: "partial", nanoseconds: 1)
        var step = StepReport(name: "prose", end: .failed(.upstreamError))
        step.attempts = [AttemptReport(agent: "scribe", model: "small", outcome: .admitted)]
        step.fallback = StepReport.Fallback(from: "writer", reason: .circuitOpen)
        metrics.stepsEnded([step, StepReport(name: "mood", end: .failed(.deadline))])
        metrics.look(nowNanoseconds: 2_000_000_000)
        let vitals = metrics.vitals
        #expect(
            vitals.requests == [
                .init(type: "news", tier: "gold", status: "complete", count: 1),
                .init(type: "wide", tier: "gold", status: "partial", count: 1),
            ])
        #expect(
            vitals.detours == [
                .init(
                    kind: .fallback, from: "writer", to: "scribe", reason: "circuit_open", count: 1)
            ])
        #expect(vitals.latencies.reduce(0, +) == 2)
        #expect(vitals.windowMilliseconds == 1_000)
    }
}
