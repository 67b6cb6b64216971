import Testing

/// `docs/seed-coverage.md` names a test for each promise of the service that this project replaces:
/// every row's file is there, has the name and says what the promise calls by name, and no part and
/// no name of the promises is left out.
struct SeedCoverageTests {
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

    @Test func `every promise of the service before has a test that is there`() throws {
        let document = try NamedTests(document: "docs/seed-coverage.md")
        #expect(document.parts.map(\.title) == Self.parts)
        document.check()
        #expect(Self.names.subtracting(document.checkNames()).isEmpty)
    }
}
