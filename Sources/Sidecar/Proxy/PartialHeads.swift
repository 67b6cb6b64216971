/// Connections of one loop in the middle of a head, whose bytes are kept until the rest comes.
/// Heads in progress are the one thing that costs memory before anybody was admitted: where the
/// loop's share runs short they are given up first.
struct PartialHeads {
    private var connections: ContiguousArray<any ServedConnection> = []

    /// Once for each head, however often it is said.
    mutating func insert(_ connection: any ServedConnection) {
        guard connection.headIndex < 0 else { return }
        connection.headIndex = connections.count
        connections.append(connection)
    }

    mutating func remove(_ connection: any ServedConnection) {
        let index = connection.headIndex
        guard index >= 0, index < connections.count else { return }
        connection.headIndex = -1
        let last = connections.removeLast()
        if index < connections.count {
            connections[index] = last
            last.headIndex = index
        }
    }

    /// Any of them but one. By chance: whoever begins many heads is met sooner than somebody who
    /// ends one within milliseconds.
    func pick(_ random: UInt64, besides one: any ServedConnection) -> (any ServedConnection)? {
        let others = connections.count - (one.headIndex < 0 ? 0 : 1)
        guard others > 0 else { return nil }
        var index = Int(random % UInt64(others))
        if one.headIndex >= 0, index >= one.headIndex { index += 1 }
        return connections[index]
    }
}
