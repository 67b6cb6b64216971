import Testing

@testable import SampleAgents

/// What the samples compute, against figures worked out by hand.
struct ComputationTests {
    @Test(arguments: [
        ("Apple stock surged 5% after strong quarterly earnings report", "positive"),
        ("Shares plunged after a profit warning", "negative"),
        ("The company will hold its annual meeting on Tuesday", "neutral"),
        ("Costs fell sharply", "positive"),
        ("Profits plunged", "negative"),
        ("Costs rose sharply", "negative"),
        ("The quarter was not good and growth was weak", "negative"),
        ("", "neutral"),
    ])
    func `sentiment follows the wording`(text: String, label: String) {
        #expect(Sentiment(text).label == label)
    }

    @Test func `intensifiers and negations change the weight of a word`() {
        #expect(Sentiment("very strong").positive > Sentiment("strong").positive)
        #expect(Sentiment("slightly strong").positive < Sentiment("strong").positive)
        #expect(Sentiment("not strong").negative > 0)
        #expect(Sentiment("not strong").negative < Sentiment("strong").positive)
    }

    @Test func `probabilities add up to one, however long the text`() {
        for count in [0, 1, 10, 1_000] {
            let scores = Sentiment(String(repeating: "strong ", count: count)).probabilities
            #expect(abs(scores.positive + scores.negative + scores.neutral - 1) < 1e-9)
        }
    }

    @Test(arguments: [
        ("", 0), ("Apple", 1), ("Apple surged 5%", 4), ("extraordinarily", 2), ("a, b. c!", 6),
        ("  two  words  ", 2),
    ])
    func `tokens are words and marks`(text: String, count: Int) {
        #expect(Tokens.count(text) == count)
        #expect(Tokens.split(text).joined() == text)
    }

    @Test func `a beginning has at most the tokens that it may have`() {
        let text = "The news about Apple reads positive."
        for limit in 0...10 {
            let beginning = Tokens.prefix(text, limit: limit)
            #expect(beginning.count <= limit)
            #expect(text.hasPrefix(beginning.pieces.joined()))
            #expect(beginning.whole == (limit >= Tokens.count(text)))
        }
    }

    @Test func `an exact trend is continued, damped, without an error`() {
        let model = Holt([0, 0, 0, 0], levelWeight: 0.5, trendWeight: 0.1)
        #expect(model.errorDeviation == 0)
        #expect(model.forecast(horizon: 3).allSatisfy { $0.mean == 0 && $0.deviation == 0 })
    }

    @Test func `one step of smoothing is as computed by hand`() {
        // It begins with level 0 and trend 1, so the first forecast is 0.95 and its error 0.05.
        let model = Holt([0, 1, 2], levelWeight: 0.5, trendWeight: 0.1)
        let level1 = 0.95 + 0.5 * 0.05
        let trend1 = 0.95 + 0.1 * 0.05
        let error2 = 2 - (level1 + 0.95 * trend1)
        #expect(abs(model.level - (level1 + 0.95 * trend1 + 0.5 * error2)) < 1e-12)
        #expect(abs(model.trend - (0.95 * trend1 + 0.1 * error2)) < 1e-12)
        let deviation = (0.05 * 0.05 + error2 * error2).squareRoot()
        #expect(abs(model.errorDeviation - deviation) < 1e-12)
    }

    @Test func `intervals widen with the horizon`() {
        let values = (0..<60).map { Double(($0 * 7) % 11) / 100 }
        let deviations = Holt.fitted(to: values).forecast(horizon: 20).map(\.deviation)
        #expect(deviations == deviations.sorted())
        #expect(deviations[0] > 0)
    }

    @Test func `value at risk is the quantile of what happened`() {
        // 21 days from -10 % to +10 %: the 5 % quantile is the second worst day.
        let returns = (0...20).map { Double($0 - 10) / 100 }
        let risk = PortfolioRisk([.init(symbol: "A", value: 100, returns: returns.reversed())])
        #expect(abs((risk.valueAtRisk(confidence: 0.95) ?? 0) - 0.09) < 1e-9)
        #expect(abs((risk.expectedShortfall(confidence: 0.95) ?? 0) - 0.095) < 1e-9)
    }

    @Test func `weights and common days make the portfolio's returns`() {
        let risk = PortfolioRisk([
            .init(symbol: "A", value: 75, returns: [0.5, 0.04, 0.08]),
            .init(symbol: "B", value: -25, returns: [0.04, -0.04]),
        ])
        #expect(risk.returns.count == 2)
        #expect(abs(risk.returns[0] - (0.75 * 0.04 - 0.25 * 0.04)) < 1e-12)
        #expect(abs(risk.returns[1] - (0.75 * 0.08 + 0.25 * 0.04)) < 1e-12)
        #expect(abs(risk.concentration - (0.5625 + 0.0625)) < 1e-12)
        #expect(risk.valueAtRisk(confidence: 0.95) == nil)
    }

    @Test func `drawdown is measured from the highest value so far`() {
        let risk = PortfolioRisk([
            .init(symbol: "A", value: 1, returns: [0.1, -0.5, 0.2, 0.2])
        ])
        #expect(abs((risk.maxDrawdown ?? 0) - 0.5) < 1e-12)
    }

    @Test func `an empty portfolio has no figures and divides by nothing`() {
        let risk = PortfolioRisk([])
        #expect(risk.concentration == 0)
        #expect(risk.coverage == 0)
        #expect(risk.volatility == nil)
        #expect(risk.maxDrawdown == nil)
    }

    @Test(arguments: [
        ("iron condor with wide wings", true), ("sell a naked put", false), ("hope", false),
    ])
    func `a strategy's bound is read off its name`(text: String, bounded: Bool) {
        #expect(StrategyRisk(text).max_loss_defined == bounded)
    }

    @Test func `the text depends on the prompt`() {
        let news = Prose(prompt: "Explain: Apple surged 5%", style: .brief).text
        #expect(news.contains("Apple") && news.contains("5%") && news.contains("positive"))
        let strategy = Prose(
            prompt: "Options strategy for TSLA, outlook bearish, risk tolerance high",
            style: .thorough
        ).text
        #expect(strategy.contains("bear put spread") && strategy.contains("TSLA"))
        #expect(news == Prose(prompt: "Explain: Apple surged 5%", style: .brief).text)
    }
}
