import WeirCore
import WeirPolicy

/// The places where a policy says that usage stands, as a tree of keys that `JSONScanner` walks in
/// the place of the forms that it knows. One for each policy; scanners only look at it.
final class UsageTree: Sendable {
    /// Behind the nodes of `UsagePath`.
    static let root: UInt8 = 16

    private struct Edge: Sendable {
        let node: UInt8
        let key: [UInt8]
        var member: UsagePath.Member
    }

    private let edges: [Edge]
    /// What header fields say.
    let headers: [(name: String, counter: UsageCounts.Counter)]
    let readsInput: Bool
    let readsOutput: Bool

    /// The pointers are those of a valid policy: not too deep, none through another.
    init(_ places: UsagePlaces) {
        let all: [(UsagePlaces.Place?, UsageCounts.Counter)] = [
            (places.input, .prompt), (places.cachedInput, .cached),
            (places.cacheWrite, .cacheWrite), (places.output, .output),
            (places.reasoning, .reasoning),
        ]
        var edges: [Edge] = []
        var nodes = Self.root
        for (place, counter) in all {
            guard let tokens = place?.pointer?.tokens else { continue }
            var node = Self.root
            for (depth, token) in tokens.enumerated() {
                let key = Array(token.utf8)
                let isLast = depth == tokens.count - 1
                let known = edges.first { $0.node == node && $0.key == key }
                if case .place(let child)? = known?.member {
                    node = child
                    continue
                }
                nodes += 1
                edges.append(
                    Edge(
                        node: node, key: key, member: isLast ? .counter(counter) : .place(nodes)))
                node = nodes
            }
        }
        self.edges = edges
        headers = all.compactMap { place, counter in place?.header.map { ($0, counter) } }
        readsInput = places.input != nil
        readsOutput = places.output != nil
    }

    /// As `UsagePath.member`.
    func member(_ node: UInt8, _ key: UsagePath.Key) -> (member: UsagePath.Member, bit: UInt32) {
        for (index, edge) in edges.enumerated() where edge.node == node && key.equals(edge.key) {
            return (edge.member, 1 << UInt32(index))
        }
        return (.unknown, 0)
    }
}
