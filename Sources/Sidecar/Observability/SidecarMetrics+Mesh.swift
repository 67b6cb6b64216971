import WeirCore

/// What a member of a mesh shows of its connection to the control plane.
package struct MeshView: Hashable, Sendable {
    package var isConnected: Bool
    /// Whether the latest policy was refused, so that an older one is in force.
    package var isPolicyRefused: Bool

    package init(isConnected: Bool, isPolicyRefused: Bool) {
        self.isConnected = isConnected
        self.isPolicyRefused = isPolicyRefused
    }
}

extension SidecarMetrics {
    /// `view` is asked at each scrape.
    package func showMesh(_ view: @escaping @Sendable () -> MeshView) {
        registry.collect { text in
            let view = view()
            text.family(
                "weir_control_plane_connected", .gauge,
                help: "1 while the connection to the control plane stands.")
            text.sample("weir_control_plane_connected", [], view.isConnected ? "1" : "0")
            text.family(
                "weir_policy_refused", .gauge,
                help: "1 while the latest policy is refused here and an older one in force.")
            text.sample("weir_policy_refused", [], view.isPolicyRefused ? "1" : "0")
        }
    }
}
