import WeirCore

/// What holds for the mesh as a whole (kind `Mesh`, one for each policy at most).
package struct MeshPolicy: Hashable, Sendable {
    /// Decide and record, refuse nothing: for every agent and every tier.
    package var observe = false

    package init() {}

    init(reading spec: ObjectReader) { observe = spec.bool("observe") ?? observe }
}
