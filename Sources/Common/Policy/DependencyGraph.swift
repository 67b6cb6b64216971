/// Names that depend on names. Small graphs of a policy: the plain way is quick enough.
package struct DependencyGraph {
    private let edges: [String: Set<String>]

    /// Edges to names that are not keys are ignored; they are reported elsewhere.
    package init(_ edges: [String: Set<String>]) { self.edges = edges }

    /// Everything that a name depends on, directly or not; itself only if it is on a cycle.
    package func reachable(from name: String) -> Set<String> {
        var found: Set<String> = []
        var open = edges[name] ?? []
        while let next = open.popFirst() {
            guard found.insert(next).inserted else { continue }
            open.formUnion((edges[next] ?? []).subtracting(found))
        }
        return found
    }

    package var namesOnCycles: Set<String> {
        Set(edges.keys.filter { reachable(from: $0).contains($0) })
    }
}
