/// The five request types of the default policy over its three tiers: what is sent, which agent
/// serves which step, and what comes of it when one agent fails. The table says what API.md's does,
/// case by case.
struct RequestTypeCase: Sendable, CustomStringConvertible {
    /// What comes of a request.
    enum Outcome: Sendable, Equatable {
        case complete
        /// Complete, because these steps went to the next agent.
        case fallback([String])
        /// These steps failed or were skipped for it.
        case partial([String])
        /// 502, for this step.
        case failed(String)
    }

    let type: String
    let tier: String
    /// Step and agent in fair weather, in the plan's order; `-` for a step that the tier skips.
    let steps: [(name: String, agent: String)]
    /// By the agent that answers 500 to everything. Those that are absent change nothing.
    let failures: [String: Outcome]

    var description: String { "\(type)/\(tier)" }
    var body: String { #"{"analysis_type": "\#(type)", "data": \#(Self.data[type] ?? "{}")}"# }

    init(
        _ type: String, _ tier: String, _ steps: KeyValuePairs<String, String>,
        failures: [String: Outcome]
    ) {
        self.type = type
        self.tier = tier
        self.steps = steps.map { ($0.key, $0.value) }
        self.failures = failures
    }

    private static let positions = """
        [{"symbol": "AAPL", "quantity": 10, "price": 231.5,
          "returns": [0.01, -0.02, 0.005, 0.012, -0.007, 0.001]},
         {"symbol": "MSFT", "quantity": -4, "price": 498}]
        """
    private static let history = """
        [{"t": "2026-11-16", "close": 101.2}, {"t": "2026-11-17", "close": 102},
         {"t": "2026-11-18T21:00:00Z", "close": 101.7}, {"t": "2026-11-19", "close": 103.4}]
        """

    static let data = [
        "news_analysis": """
        {"text": "Apple stock surged 5% after a strong report", "symbols": ["AAPL"]}
        """,
        "options_recommendation": """
        {"symbol": "AAPL", "outlook": "bullish", "risk_tolerance": "moderate",
         "horizon_days": 45, "positions": \(positions)}
        """,
        "price_prediction": """
        {"symbol": "AAPL", "history": \(history), "horizon_days": 5}
        """,
        "portfolio_analysis": """
        {"positions": \(positions), "news": ["Profits rose sharply.", "A lawsuit was filed."]}
        """,
        "comprehensive_analysis": """
        {"text": "Apple stock surged 5% after a strong report", "symbols": ["AAPL"],
         "symbol": "AAPL", "outlook": "bearish", "risk_tolerance": "low", "horizon_days": 10,
         "history": \(history), "positions": \(positions), "news": "Profits rose sharply."}
        """,
    ]
}

extension RequestTypeCase {
    static let all = news + options + prices + portfolio + comprehensive

    private static let news = [
        RequestTypeCase(
            "news_analysis", "free", ["sentiment": "finbert", "explanation": "llama2-7b"],
            failures: ["finbert": .failed("sentiment"), "llama2-7b": .failed("explanation")]),
        RequestTypeCase(
            "news_analysis", "premium", ["sentiment": "finbert", "explanation": "llama2-7b"],
            failures: ["finbert": .failed("sentiment"), "llama2-7b": .failed("explanation")]),
        RequestTypeCase(
            "news_analysis", "enterprise", ["sentiment": "finbert", "explanation": "gpt4-turbo"],
            failures: ["finbert": .failed("sentiment"), "gpt4-turbo": .fallback(["explanation"])]),
    ]

    private static let options =
        [
            RequestTypeCase(
                "options_recommendation", "free", ["strategy": "llama2-7b", "risk": "risk"],
                failures: ["llama2-7b": .failed("strategy"), "risk": .failed("risk")])
        ]
        + ["premium", "enterprise"].map { tier in
            RequestTypeCase(
                "options_recommendation", tier, ["strategy": "gpt4-turbo", "risk": "risk"],
                failures: ["gpt4-turbo": .fallback(["strategy"]), "risk": .failed("risk")])
        }

    private static let prices =
        ["free", "premium"].map { tier in
            RequestTypeCase(
                "price_prediction", tier, ["forecast": "tft", "explanation": "llama2-7b"],
                failures: ["tft": .failed("forecast"), "llama2-7b": .failed("explanation")])
        } + [
            RequestTypeCase(
                "price_prediction", "enterprise",
                ["forecast": "tft", "explanation": "gpt4-turbo"],
                failures: ["tft": .failed("forecast"), "gpt4-turbo": .fallback(["explanation"])])
        ]

    private static let portfolio = [
        RequestTypeCase(
            "portfolio_analysis", "free",
            ["risk": "risk", "sentiment": "finbert", "summary": "-"],
            failures: ["risk": .failed("risk"), "finbert": .failed("sentiment")]),
        RequestTypeCase(
            "portfolio_analysis", "premium",
            ["risk": "risk", "sentiment": "finbert", "summary": "llama2-7b"],
            failures: [
                "risk": .failed("risk"), "finbert": .failed("sentiment"),
                "llama2-7b": .partial(["summary"]),
            ]),
        RequestTypeCase(
            "portfolio_analysis", "enterprise",
            ["risk": "risk", "sentiment": "finbert", "summary": "gpt4-turbo"],
            failures: [
                "risk": .failed("risk"), "finbert": .failed("sentiment"),
                "gpt4-turbo": .fallback(["summary"]),
            ]),
    ]

    private static let comprehensive = [
        ("free", "llama2-7b"), ("premium", "gpt4-turbo"), ("enterprise", "gpt4-turbo"),
    ].map { tier, writer in
        var failures: [String: Outcome] = [
            "finbert": .partial(["sentiment", "explanation", "news_sentiment"]),
            "tft": .partial(["forecast"]),
            "risk": .partial(["strategy_risk", "portfolio_risk"]),
            "llama2-7b": .partial(["explanation"]),
        ]
        if writer == "llama2-7b" {
            failures[writer] = .partial(["explanation", "strategy", "strategy_risk", "summary"])
        } else {
            failures[writer] = .fallback(["strategy", "summary"])
        }
        return RequestTypeCase(
            "comprehensive_analysis", tier,
            [
                "sentiment": "finbert", "explanation": "llama2-7b", "news_sentiment": "finbert",
                "forecast": "tft", "strategy": writer, "strategy_risk": "risk",
                "portfolio_risk": "risk", "summary": writer,
            ], failures: failures)
    }
}
