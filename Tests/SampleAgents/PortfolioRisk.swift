import Foundation

/// Risk figures of a portfolio from what its positions returned in the past, without any assumption
/// about a distribution.
struct PortfolioRisk {
    struct Position {
        let symbol: String
        let value: Double
        /// Past returns for one day each, oldest first; empty where unknown.
        let returns: [Double]
    }

    let positions: [Position]
    /// Σ |value|: a short position is exposure, too.
    let grossValue: Double
    /// What the portfolio would have returned on each past day, with today's weights.
    let returns: [Double]
    /// The share of gross value whose history is known.
    let coverage: Double

    init(_ positions: [Position]) {
        self.positions = positions
        let gross = positions.reduce(0) { $0 + abs($1.value) }
        grossValue = gross
        let known = positions.filter { !$0.returns.isEmpty }
        let knownGross = known.reduce(0) { $0 + abs($1.value) }
        coverage = gross > 0 ? knownGross / gross : 0
        // Only the days that all known positions have, counted back from the last.
        let days = known.map(\.returns.count).min() ?? 0
        returns = (0..<days).map { day in
            known.reduce(0) { sum, position in
                let past = position.returns[position.returns.count - days + day]
                return sum + past * position.value / max(knownGross, .leastNonzeroMagnitude)
            }
        }
    }

    /// The loss that was exceeded on a share of 1 − confidence of the days, as a share of the
    /// gross value; never below 0.
    func valueAtRisk(confidence: Double) -> Double? {
        quantile(1 - confidence).map { max(0, -$0) }
    }

    /// The mean loss on the days that were as bad as the value at risk, or worse.
    func expectedShortfall(confidence: Double) -> Double? {
        guard let threshold = quantile(1 - confidence) else { return nil }
        let tail = returns.filter { $0 <= threshold }
        // Between two observations the threshold may lie below the worst day of a short history.
        guard !tail.isEmpty else { return returns.min().map { max(0, -$0) } }
        return max(0, -tail.reduce(0, +) / Double(tail.count))
    }

    /// The sample's standard deviation for one day.
    var volatility: Double? {
        guard returns.count >= 2 else { return nil }
        let mean = returns.reduce(0, +) / Double(returns.count)
        let squares = returns.reduce(0) { $0 + ($1 - mean) * ($1 - mean) }
        return (squares / Double(returns.count - 1)).squareRoot()
    }

    /// The deepest fall from an earlier high, as a share of that high.
    var maxDrawdown: Double? {
        guard !returns.isEmpty else { return nil }
        var value = 1.0
        var high = 1.0
        var deepest = 0.0
        for change in returns {
            value *= 1 + change
            high = max(high, value)
            deepest = max(deepest, 1 - value / high)
        }
        return deepest
    }

    /// Herfindahl–Hirschman index of the weights: 1 for one position, 1/n for n equal ones.
    var concentration: Double {
        guard grossValue > 0 else { return 0 }
        return positions.reduce(0) {
            let weight = abs($1.value) / grossValue
            return $0 + weight * weight
        }
    }

    /// Linear interpolation between order statistics (type 7 of Hyndman and Fan 1996). Fewer than
    /// five days say nothing about a tail.
    func quantile(_ share: Double) -> Double? {
        guard returns.count >= 5 else { return nil }
        let sorted = returns.sorted()
        let position = share * Double(sorted.count - 1)
        let below = Int(position.rounded(.down))
        let above = min(below + 1, sorted.count - 1)
        return sorted[below] + (position - Double(below)) * (sorted[above] - sorted[below])
    }
}
