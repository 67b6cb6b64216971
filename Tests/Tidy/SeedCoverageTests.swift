import Foundation
import Testing

/// `docs/seed-coverage.md` names a test for each promise of the service that this project replaces:
/// every row's file is there, has the name and says what the promise calls by name, and no part and
/// no name of the promises is left out.
struct SeedCoverageTests {
    private struct Row {
        let promise: String
        let path: String
        let name: String
    }

    private static let parts = [
        "Multi-Agent Coordination", "Cost Management", "Performance Monitoring",
        "Security & Compliance", "Agent Types", "Request Types", "User Tiers", "Quick Start",
        "API Endpoints", "Configuration", "Monitoring", "Development", "Production Deployment",
        "Security Checklist", "Troubleshooting",
    ]

    /// What users of that service wrote into their programs, files and dashboards.
    private static let names: Set<String> = [
        "/analyze", "/health", "/agents/health", "/agents/preferences", "/agents/performance/",
        "/agents/test", "/stats", "/cost/breakdown", "/cost/suggestions", "/budget/update",
        "/metrics", "news_analysis", "options_recommendation", "price_prediction",
        "portfolio_analysis", "comprehensive_analysis", "free", "premium", "enterprise",
        "DATABASE_URL", "REDIS_URL", "OPENAI_API_KEY", "HUGGINGFACE_API_KEY",
        "FINBERT_SERVICE_URL", "LLAMA_SERVICE_URL", "GPT4_SERVICE_URL", "JWT_SECRET_KEY",
        "CORS_ORIGINS", "MAX_CONCURRENT_REQUESTS", "CIRCUIT_BREAKER_THRESHOLD",
        "AGENT_TIMEOUT_DEFAULT", "DEBUG", "LOG_LEVEL", "orchestrator_requests_total",
        "orchestrator_request_duration_seconds", "agent_invocations_total", "cost_usd_total",
        "circuit_breaker_state", "system_health_score", "image.tag", "database.url",
        "secrets.openaiKey",
    ]

    private func text(_ path: String) throws -> String {
        try String(contentsOf: SourceFile.root.appendingPathComponent(path), encoding: .utf8)
    }

    private func rows(_ part: String) -> [Row] {
        part.split(separator: "\n").filter { $0.hasSuffix("` |") }.compactMap { line in
            let cells = line.components(separatedBy: " | ")
            guard cells.count == 3 else { return nil }
            return Row(
                promise: String(cells[0].dropFirst(2)),
                path: cells[1].replacingOccurrences(of: "`", with: ""),
                name: String(cells[2].dropFirst().dropLast(3)))
        }
    }

    @Test func `every promise of the service before has a test that is there`() throws {
        let parts = try text("docs/seed-coverage.md").components(separatedBy: "\n## ").dropFirst()
        var promised: Set<String> = []
        #expect(parts.map { $0.components(separatedBy: "\n")[0] } == Self.parts)
        for part in parts {
            let rows = rows(part)
            let lines = part.split(separator: "\n").filter { $0.hasPrefix("| ") }
            #expect(!rows.isEmpty && rows.count == lines.count - 1, "a row without a test: \(part)")
            for row in rows {
                let test = (try? text(row.path)) ?? ""
                #expect(test.contains(row.name), "\(row.promise): \(row.path) has no \(row.name)")
                let names = row.promise.matches(of: /`([^`]+)`/).map { String($0.output.1) }
                for name in names {
                    #expect(test.contains(name), "\(row.path) does not say \(name)")
                }
                promised.formUnion(names)
            }
        }
        #expect(Self.names.subtracting(promised).isEmpty)
    }
}
