import SidecarCore

/// Asks the resolver again and again what the upstreams' names mean, on a thread of its own because
/// the resolver blocks. It says nothing of how long an answer holds, so it is asked every few
/// seconds; a name that means nothing for a while keeps its last addresses.
final class NameWatcher {
    static let intervalNanoseconds: UInt64 = 5_000_000_000

    private let thread: LoopThread
    private let box: LoopBound<Rounds>

    /// What only the thread touches.
    private final class Rounds {
        let origins: [HTTPOrigin]
        let resolve: @Sendable (String) -> [SocketAddress]
        let changed: @Sendable ([SocketAddress]) -> Void
        var last: [[SocketAddress]]

        init(
            _ origins: [HTTPOrigin], resolve: @escaping @Sendable (String) -> [SocketAddress],
            changed: @escaping @Sendable ([SocketAddress]) -> Void
        ) {
            self.origins = origins
            self.resolve = resolve
            self.changed = changed
            last = origins.map(\.addresses)
        }

        func ask() {
            let before = last
            for (index, origin) in origins.enumerated() {
                guard let name = origin.name else { continue }
                let found = name.addresses(resolve)
                // Resolvers shuffle their answers.
                if !found.isEmpty, Set(found) != Set(last[index]) { last[index] = found }
            }
            guard last != before else { return }
            var all: [SocketAddress] = []
            for address in last.joined() where !all.contains(address) { all.append(address) }
            changed(all)
        }

        func askForEver(_ loop: EventLoop, every interval: UInt64) {
            loop.schedule(afterNanoseconds: interval) { [self] in
                ask()
                askForEver(loop, every: interval)
            }
        }
    }

    /// `nil` when there is no name among them. `changed` is called on the thread, with all
    /// addresses.
    init?(
        _ origins: [HTTPOrigin], intervalNanoseconds: UInt64 = NameWatcher.intervalNanoseconds,
        resolve: @escaping @Sendable (String) -> [SocketAddress] = HostName.resolve,
        changed: @escaping @Sendable ([SocketAddress]) -> Void
    ) throws {
        guard origins.contains(where: { $0.name != nil }) else { return nil }
        let loop = try EventLoop()
        let rounds = Rounds(origins, resolve: resolve, changed: changed)
        let box = LoopBound(rounds, loop: loop)
        self.box = box
        loop.execute { box.value.askForEver(loop, every: intervalNanoseconds) }
        thread = try LoopThread(loop, name: "weir-names")
    }

    /// Does not wait: the resolver may take its time, and the process ends without it.
    func stop() { thread.loop.stop() }
}
