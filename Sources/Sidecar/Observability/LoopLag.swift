import WeirCore

/// Feeds `weir_loop_lag_seconds`: a timer of a loop each second, and how late it came. What makes
/// it late is what makes everything else on that loop late.
package final class LoopLag {
    private static let everyNanoseconds: UInt64 = 1_000_000_000

    // The loop keeps its timers, and so this.
    private unowned let loop: EventLoop
    private let registry: Metrics
    private let series: Metrics.Series

    private init(_ loop: EventLoop, worker: String, _ metrics: SidecarMetrics) {
        self.loop = loop
        registry = metrics.registry
        series = metrics.registry.series(metrics.loopLag, [worker])
    }

    /// For as long as the loop runs; from any thread.
    package static func measure(_ loop: EventLoop, worker: String, _ metrics: SidecarMetrics) {
        let bound = LoopBound(LoopLag(loop, worker: worker, metrics), loop: loop)
        loop.execute { bound.value.wait() }
    }

    private func wait() {
        let due = loop.nowNanoseconds + Self.everyNanoseconds
        loop.schedule(afterNanoseconds: Self.everyNanoseconds) { [self] in
            let late = loop.nowNanoseconds - min(loop.nowNanoseconds, due)
            registry.observe(series, bounds: SidecarMetrics.lagBounds, nanoseconds: late)
            wait()
        }
    }
}
