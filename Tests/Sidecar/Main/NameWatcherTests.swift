import Synchronization
import Testing

@testable import SidecarCore
@testable import SidecarWiring

/// A resolver whose answers the test changes.
private final class Names: Sendable {
    private let answers = Mutex<[String: [SocketAddress]]>([:])
    private let seen = Mutex<[[SocketAddress]]>([])
    private let asked = Mutex(0)

    var changes: [[SocketAddress]] { seen.withLock { $0 } }
    var questions: Int { asked.withLock { $0 } }

    func set(_ name: String, _ hosts: [UInt32]) {
        answers.withLock { $0[name] = hosts.map { .ipv4($0, port: 0) } }
    }

    func resolve(_ name: String) -> [SocketAddress] {
        asked.withLock { $0 += 1 }
        return answers.withLock { $0[name] ?? [] }
    }

    func changed(_ addresses: [SocketAddress]) { seen.withLock { $0.append(addresses) } }
}

@Suite struct NameWatcherTests {
    private static func origin(_ text: String, _ names: Names) throws -> HTTPOrigin {
        let name = try #require(HostPort(text))
        return HTTPOrigin(authority: text, addresses: name.addresses(names.resolve), name: name)
    }

    @Test func aNameIsFollowed() throws {
        let names = Names()
        names.set("llama", [1, 2])
        let fixed = HTTPOrigin(authority: "f", addresses: [.loopback(port: 7)])
        let watcher = try #require(
            try NameWatcher(
                [fixed, Self.origin("llama:80", names)], intervalNanoseconds: 2_000_000,
                resolve: names.resolve, changed: names.changed))
        names.set("llama", [2, 1])
        let before = names.questions
        #expect(eventually { names.questions > before + 3 })
        #expect(names.changes.isEmpty, "another order is no change")
        names.set("llama", [2, 3, 3])
        #expect(eventually { !names.changes.isEmpty })
        #expect(
            names.changes == [[.loopback(port: 7), .ipv4(2, port: 80), .ipv4(3, port: 80)]])
        names.set("llama", [])
        let later = names.questions
        #expect(eventually { names.questions > later + 3 })
        #expect(names.changes.count == 1, "the last good answer stays")
        watcher.stop()
    }

    @Test func addressesAreNotWatched() throws {
        let fixed = HTTPOrigin(authority: "f", addresses: [.loopback(port: 7)])
        #expect(try NameWatcher([fixed], changed: { _ in }) == nil)
    }

    @Test func oneFamilyOfTwo() {
        let found: [SocketAddress] = [
            .ipv4(1, port: 0), .ipv4(2, port: 0), .ipv6(0, 1, scope: 0, port: 0),
        ]
        #expect(
            HostPort("a:5")?.addresses { _ in found } == [.ipv4(1, port: 5), .ipv4(2, port: 5)])
        #expect(HostPort("a:x") == nil && HostPort(":5") == nil)
    }
}
