import Foundation

/// Exponential smoothing with a damped linear trend (Holt; Gardner and McKenzie 1985) on the
/// logarithms of prices, so that a forecast is never negative and an interval is relative.
struct Holt: Equatable {
    /// How fast a trend dies out; 1 would let it run on for ever.
    static let damping = 0.95

    let levelWeight: Double
    let trendWeight: Double
    private(set) var level: Double
    private(set) var trend: Double
    /// Standard deviation of the one-step errors.
    private(set) var errorDeviation: Double

    /// The best fit, by squared one-step error over a grid of weights.
    ///
    /// - Parameter logarithms: at least 3 values, oldest first.
    static func fitted(to logarithms: [Double]) -> Holt {
        let grid = stride(from: 0.1, through: 0.9, by: 0.1)
        var best = Holt(logarithms, levelWeight: 0.5, trendWeight: 0.1)
        for levelWeight in grid {
            for trendWeight in [0.05] + grid.filter({ $0 < levelWeight }) {
                let candidate = Holt(
                    logarithms, levelWeight: levelWeight, trendWeight: trendWeight)
                if candidate.errorDeviation < best.errorDeviation { best = candidate }
            }
        }
        return best
    }

    init(_ values: [Double], levelWeight: Double, trendWeight: Double) {
        precondition(values.count >= 3, "a trend and an error need three values")
        self.levelWeight = levelWeight
        self.trendWeight = trendWeight
        level = values[0]
        trend = values[1] - values[0]
        var squares = 0.0
        for value in values.dropFirst() {
            let error = value - (level + Self.damping * trend)
            squares += error * error
            level += Self.damping * trend + levelWeight * error
            trend = Self.damping * trend + trendWeight * error
        }
        errorDeviation = (squares / Double(values.count - 2)).squareRoot()
    }

    /// Means and standard deviations for the steps 1…horizon. The variance of step h
    /// is σ²(1 + Σ cⱼ²) with cⱼ = α + β(φ + φ² + … + φʲ) for j < h (Hyndman et al.
    /// 2008, §6.2).
    func forecast(horizon: Int) -> [(mean: Double, deviation: Double)] {
        var damped = 0.0
        var power = 1.0
        var variance = errorDeviation * errorDeviation
        return (1...horizon).map { _ in
            power *= Self.damping
            damped += power
            let step = (mean: level + damped * trend, deviation: variance.squareRoot())
            let response = levelWeight + trendWeight * damped
            variance += errorDeviation * errorDeviation * response * response
            return step
        }
    }
}
