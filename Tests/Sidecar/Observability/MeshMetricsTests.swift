import Synchronization
import Testing

@testable import SidecarCore

@Suite struct MeshMetricsTests {
    @Test func theViewIsAskedAtEachScrape() {
        let metrics = SidecarMetrics(Metrics())
        let view = Mutex(MeshView(isConnected: true, isPolicyRefused: false))
        metrics.showMesh { view.withLock { $0 } }
        func shows(_ line: String) -> Bool {
            String(decoding: metrics.registry.exposition(), as: UTF8.self)
                .split(separator: "\n").contains { $0 == line }
        }
        #expect(shows("weir_control_plane_connected 1") && shows("weir_policy_refused 0"))
        view.withLock { $0 = MeshView(isConnected: false, isPolicyRefused: true) }
        #expect(shows("weir_control_plane_connected 0") && shows("weir_policy_refused 1"))
    }
}
