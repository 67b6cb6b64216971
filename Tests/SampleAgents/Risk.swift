import Foundation

/// The risk agent: a portfolio (`positions`), the words of an options strategy (`strategy`), or
/// both → figures and a level.
enum RiskAgent {
    static let positionsMax = 1_000
    static let returnsMax = 10_000

    private struct Query: Decodable {
        struct Position: Decodable {
            let symbol: String
            let quantity: Double
            let price: Double
            let returns: [Double]?
        }

        let positions: [Position]?
        let strategy: String?
        let risk_tolerance: String?
    }

    private struct Portfolio: Encodable {
        let gross_value: Double
        let weights: [String: Double]
        let concentration: Double
        let effective_positions: Double
        let largest: String?
        let observations: Int
        let coverage: Double
        let volatility_daily: Double?
        let volatility_annual: Double?
        let value_at_risk_95: Double?
        let value_at_risk_99: Double?
        let value_at_risk_95_usd: Double?
        let expected_shortfall_95: Double?
        let max_drawdown: Double?
        let method = "historical simulation"
    }

    private struct Report: Encodable {
        let portfolio: Portfolio?
        let strategy: StrategyRisk?
        let level: String
        let suits_tolerance: Bool?
        let notes: [String]
        let sample = true
    }

    static func answer(_ body: [UInt8]) throws(Refusal) -> Answer {
        let query = try SampleJSON.decode(Query.self, from: body)
        let positions = try validated(query.positions ?? [])
        let strategy = query.strategy.map(StrategyRisk.init)
        guard !positions.isEmpty || strategy != nil else {
            throw .invalid("positions or strategy: one of them is required")
        }
        let risk = positions.isEmpty ? nil : PortfolioRisk(positions)
        let level = RiskLevel.of(portfolio: risk, strategy: strategy)
        let report = Report(
            portfolio: risk.map(portfolio), strategy: strategy, level: level.rawValue,
            suits_tolerance: query.risk_tolerance.flatMap { level.suits(tolerance: $0) },
            notes: notes(risk, strategy))
        return Answer(fields: [("sample", "true")], pieces: [SampleJSON.encode(report)])
    }

    private static func validated(
        _ positions: [Query.Position]
    ) throws(Refusal) -> [PortfolioRisk.Position] {
        guard positions.count <= positionsMax else {
            throw .invalid("positions: at most \(positionsMax)")
        }
        var result: [PortfolioRisk.Position] = []
        for (index, position) in positions.enumerated() {
            let returns = position.returns ?? []
            guard abs(position.quantity) <= 1e12, (0...1e9).contains(position.price) else {
                throw .invalid("positions/\(index): quantity or price out of range")
            }
            guard returns.count <= returnsMax, returns.allSatisfy({ (-1...10).contains($0) }) else {
                throw .invalid(
                    "positions/\(index)/returns: at most \(returnsMax), each from -1 to 10")
            }
            result.append(
                .init(
                    symbol: position.symbol, value: position.quantity * position.price,
                    returns: returns))
        }
        return result
    }

    private static func portfolio(_ risk: PortfolioRisk) -> Portfolio {
        let gross = max(risk.grossValue, .leastNonzeroMagnitude)
        let weights = risk.positions.reduce(into: [String: Double]()) {
            $0[$1.symbol, default: 0] += $1.value / gross
        }
        let largest = weights.max { (abs($0.value), $1.key) < (abs($1.value), $0.key) }
        let valueAtRisk = risk.valueAtRisk(confidence: 0.95)
        return Portfolio(
            gross_value: rounded(risk.grossValue), weights: weights.mapValues(rounded),
            concentration: rounded(risk.concentration),
            effective_positions: risk.concentration > 0 ? rounded(1 / risk.concentration) : 0,
            largest: largest?.key, observations: risk.returns.count,
            coverage: rounded(risk.coverage), volatility_daily: risk.volatility.map(rounded),
            // 252 trading days in a year.
            volatility_annual: risk.volatility.map { rounded($0 * 252.0.squareRoot()) },
            value_at_risk_95: valueAtRisk.map(rounded),
            value_at_risk_99: risk.valueAtRisk(confidence: 0.99).map(rounded),
            value_at_risk_95_usd: valueAtRisk.map { rounded($0 * risk.grossValue * risk.coverage) },
            expected_shortfall_95: risk.expectedShortfall(confidence: 0.95).map(rounded),
            max_drawdown: risk.maxDrawdown.map(rounded))
    }

    private static func notes(_ risk: PortfolioRisk?, _ strategy: StrategyRisk?) -> [String] {
        var notes: [String] = []
        if let risk {
            if risk.returns.count < 5 {
                notes.append("fewer than 5 days of returns: no value at risk")
            } else if risk.returns.count < 100 {
                notes.append("\(risk.returns.count) days of returns: the tail is uncertain")
            }
            if risk.coverage < 1 {
                notes.append("positions without returns are left out of the figures")
            }
            if risk.concentration > 0.5 { notes.append("one position dominates") }
        }
        if let strategy, !strategy.max_loss_defined {
            notes.append("the strategy's loss has no stated bound")
        }
        return notes
    }

    private static func rounded(_ value: Double) -> Double { (value * 1e6).rounded() / 1e6 }
}

/// What the words of an options strategy say about its risk.
struct StrategyRisk: Encodable {
    let recognised: String?
    let max_loss_defined: Bool

    /// From the most specific name to the least. Bounded means that the loss is known on entry.
    private static let known: [(name: String, bounded: Bool)] = [
        ("iron condor", true), ("iron butterfly", true), ("bull call spread", true),
        ("bear put spread", true), ("bull put spread", true), ("bear call spread", true),
        ("calendar spread", true), ("long straddle", true), ("long strangle", true),
        ("protective put", true), ("collar", true), ("cash-secured put", true),
        ("covered call", false), ("short straddle", false), ("short strangle", false),
        ("naked call", false), ("naked put", false), ("long call", true), ("long put", true),
    ]

    init(_ text: String) {
        let lowercase = text.lowercased()
        let found = Self.known.first { lowercase.contains($0.name) }
        recognised = found?.name
        max_loss_defined = found?.bounded ?? false
    }
}

enum RiskLevel: String, CaseIterable {
    case low, moderate, high

    /// The worse of what the portfolio and the strategy say: daily loss at 95 %, concentration, and
    /// whether the loss is bounded.
    static func of(portfolio: PortfolioRisk?, strategy: StrategyRisk?) -> RiskLevel {
        var rank = 0
        if let portfolio {
            let loss = portfolio.valueAtRisk(confidence: 0.95) ?? 0.02
            rank = loss > 0.03 ? 2 : loss > 0.015 ? 1 : 0
            if portfolio.concentration > 0.5 { rank = max(rank, 1) }
        }
        if let strategy { rank = max(rank, strategy.max_loss_defined ? 1 : 2) }
        return allCases[rank]
    }

    /// nil where the tolerance is none of low, moderate (medium) and high.
    func suits(tolerance: String) -> Bool? {
        let order: [String: Int] = ["low": 0, "moderate": 1, "medium": 1, "high": 2]
        guard let allowed = order[tolerance.lowercased()], let rank = order[rawValue] else {
            return nil
        }
        return rank <= allowed
    }
}
