import SidecarCore

/// What the link to the control plane exports of its messages: for each kind how many, how they
/// ended and how long the answer took.
package struct UplinkMetrics: Sendable {
    package enum Outcome: String, Sendable { case answered, refused, failed }

    private let registry: Metrics
    private let messages: Metrics.Family
    private let roundTrip: Metrics.Family

    package init(_ registry: Metrics) {
        self.registry = registry
        messages = registry.family(
            .counter, "weir_uplink_messages_total",
            help: "Messages to the control plane: answered, refused by it, or failed on the way.",
            labels: ["message", "outcome"])
        roundTrip = registry.family(
            .histogram(bounds: SidecarMetrics.latencyBounds), "weir_uplink_round_trip_seconds",
            help: "From a message to the control plane to the end of its answer.",
            labels: ["message"])
    }

    func ended(_ path: String, _ outcome: Outcome, nanoseconds: UInt64) {
        let message = Self.message(path)
        registry.add(registry.series(messages, [message, outcome.rawValue]))
        guard outcome != .failed else { return }
        registry.observe(
            registry.series(roundTrip, [message]), bounds: SidecarMetrics.latencyBounds,
            nanoseconds: nanoseconds)
    }

    /// What stands behind `/mesh/v1/`, to the next slash: one of a few.
    private static func message(_ path: String) -> String {
        String(path.split(separator: "/").dropFirst(2).first?.prefix { $0 != "?" } ?? "-")
    }
}
