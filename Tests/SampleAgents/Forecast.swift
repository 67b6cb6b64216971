import Foundation

/// The stand-in for a temporal fusion transformer: `{"symbol", "history": [{"t", "close"}],
/// "horizon_days"}` → one forecast with intervals for each day. One observation is one day.
enum ForecastAgent {
    static let historyMin = 3
    static let historyMax = 10_000
    static let horizonMax = 365

    private struct Query: Decodable {
        struct Observation: Decodable { let close: Double }

        let symbol: String?
        let history: [Observation]
        let horizon_days: Int?
    }

    private struct Interval: Encodable {
        let lower: Double
        let upper: Double
    }

    private struct Day: Encodable {
        let day: Int
        let close: Double
        let interval_80: Interval
        let interval_95: Interval
    }

    private struct Forecast: Encodable {
        let symbol: String?
        let horizon_days: Int
        let last_close: Double
        let expected_return: Double
        let direction: String
        let daily_volatility: Double
        let forecast: [Day]
        let method = "damped trend exponential smoothing of log prices"
        let observations: Int
        let sample = true
    }

    static func answer(_ body: [UInt8]) throws(Refusal) -> Answer {
        let query = try SampleJSON.decode(Query.self, from: body)
        let closes = query.history.map(\.close)
        guard (historyMin...historyMax).contains(closes.count) else {
            throw .invalid("history: between \(historyMin) and \(historyMax) observations")
        }
        guard closes.allSatisfy({ $0 >= 1e-9 && $0 <= 1e12 }) else {
            throw .invalid("history: every close must be a positive price")
        }
        let horizon = query.horizon_days ?? 5
        guard (1...horizonMax).contains(horizon) else {
            throw .invalid("horizon_days: between 1 and \(horizonMax)")
        }
        let forecast = forecast(query.symbol, closes: closes, horizon: horizon)
        return Answer(fields: [("sample", "true")], pieces: [SampleJSON.encode(forecast)])
    }

    private static func forecast(_ symbol: String?, closes: [Double], horizon: Int) -> Forecast {
        let model = Holt.fitted(to: closes.map { log($0) })
        let days = model.forecast(horizon: horizon).enumerated().map { index, step in
            Day(
                day: index + 1, close: price(step.mean),
                interval_80: interval(step, deviations: 1.2816),
                interval_95: interval(step, deviations: 1.9600))
        }
        let last = closes[closes.count - 1]
        let expected = (days.last?.close ?? last) / last - 1
        // Less than half a day's usual movement is no direction.
        let noise = model.errorDeviation / 2
        return Forecast(
            symbol: symbol, horizon_days: horizon, last_close: last,
            expected_return: rounded(expected),
            direction: expected > noise ? "up" : expected < -noise ? "down" : "flat",
            daily_volatility: rounded(model.errorDeviation), forecast: days,
            observations: closes.count)
    }

    private static func interval(
        _ step: (mean: Double, deviation: Double), deviations: Double
    ) -> Interval {
        Interval(
            lower: price(step.mean - deviations * step.deviation),
            upper: price(step.mean + deviations * step.deviation))
    }

    /// A wild history makes exponents that no price has; they are capped so that JSON can say them.
    private static func price(_ logarithm: Double) -> Double {
        rounded(exp(min(max(logarithm, -30), 30)))
    }

    private static func rounded(_ value: Double) -> Double { (value * 1e6).rounded() / 1e6 }
}
