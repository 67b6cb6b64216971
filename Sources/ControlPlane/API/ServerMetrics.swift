import Synchronization

/// The control plane's own metrics, in Prometheus's text format. Labels are patterns of routes,
/// methods that routes know and statuses, so their number is bounded; no user is ever a label.
package final class ServerMetrics: Sendable {
    private struct Key: Hashable, Comparable {
        var listener: String
        var method: String
        var route: String
        var status: Int

        static func < (left: Key, right: Key) -> Bool {
            (left.listener, left.route, left.method, left.status)
                < (right.listener, right.route, right.method, right.status)
        }
    }

    private struct Series {
        /// One for each bound, not cumulative; the last for what is above all of them.
        var buckets: [UInt64]
        var seconds = 0.0
    }

    private static let bounds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0]
    /// More series than routes × methods × statuses can be only a mistake of ours.
    private static let seriesMax = 2_000
    private static let knownMethods: Set<String> = [
        "GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS",
    ]

    private let series = Mutex([Key: Series]())

    package init() {}

    func answered(
        listener: String, method: String, route: String, status: Int, _ elapsed: Duration
    ) {
        let seconds =
            Double(elapsed.components.seconds) + Double(elapsed.components.attoseconds) / 1e18
        let key = Key(
            listener: listener, method: Self.knownMethods.contains(method) ? method : "other",
            route: route, status: status)
        let bucket = Self.bounds.firstIndex { seconds <= $0 } ?? Self.bounds.count
        series.withLock { series in
            guard series.count < Self.seriesMax || series[key] != nil else { return }
            let empty = Series(buckets: [UInt64](repeating: 0, count: Self.bounds.count + 1))
            series[key, default: empty].buckets[bucket] += 1
            series[key, default: empty].seconds += seconds
        }
    }

    /// A value that is looked up when the metrics are asked for.
    struct Gauge {
        var name: String
        var help: String
        /// Labels in the text format, with braces, or nothing.
        var values: [(labels: String, value: Int64)]
    }

    func text(_ gauges: [Gauge]) -> String {
        let name = "weir_control_plane_request_duration_seconds"
        var lines = [
            "# HELP \(name) Time from a request's head to the head of its answer.",
            "# TYPE \(name) histogram",
        ]
        for (key, value) in series.withLock({ $0 }).sorted(by: { $0.key < $1.key }) {
            let labels =
                "listener=\"\(key.listener)\",method=\"\(key.method)\",route=\"\(key.route)\","
                + "status=\"\(key.status)\""
            var count: UInt64 = 0
            for (bound, bucket) in zip(Self.bounds.map { "\($0)" } + ["+Inf"], value.buckets) {
                count += bucket
                lines.append("\(name)_bucket{\(labels),le=\"\(bound)\"} \(count)")
            }
            lines.append("\(name)_sum{\(labels)} \(value.seconds)")
            lines.append("\(name)_count{\(labels)} \(count)")
        }
        for gauge in gauges {
            lines.append("# HELP \(gauge.name) \(gauge.help)")
            lines.append("# TYPE \(gauge.name) gauge")
            lines += gauge.values.map { "\(gauge.name)\($0.labels) \($0.value)" }
        }
        return lines.joined(separator: "\n") + "\n"
    }
}
