import Testing

@testable import ControlPlaneStore

@Suite(.timeLimit(.minutes(1))) struct RedisSlotsTests {
    private let asked = RedisURL.Address.tcp(host: "10.0.0.9", port: 6379)

    /// The check value of CRC-16/XMODEM, and the examples of the cluster specification.
    @Test func slotsAreThoseOfTheSpecification() {
        #expect(RedisSlots.slot(of: "123456789") == 0x31C3)
        #expect(RedisSlots.slot(of: "foo") == 12_182)
        #expect(RedisSlots.slot(of: "{user1000}.following") == RedisSlots.slot(of: "user1000"))
        #expect(RedisSlots.slot(of: "foo{{bar}}zap") == RedisSlots.slot(of: "{bar"))
        #expect(RedisSlots.slot(of: "foo{bar}{zap}") == RedisSlots.slot(of: "bar"))
        #expect(RedisSlots.slot(of: "foo{}{bar}") != RedisSlots.slot(of: "bar"))
        #expect(RedisSlots.slot(of: "foo{bar") != RedisSlots.slot(of: "bar"))
    }

    @Test func commandsGoByTheirFirstKey() {
        #expect(RedisSlots.routingKey(of: ["GET", "k"]) == "k")
        #expect(RedisSlots.routingKey(of: ["EVALSHA", "h", "2", "a", "b", "c"]) == "a")
        #expect(RedisSlots.routingKey(of: ["EVAL", "s", "0", "a"]) == nil)
        #expect(RedisSlots.routingKey(of: ["SCRIPT", "LOAD", "s"]) == nil)
        #expect(RedisSlots.routingKey(of: []) == nil)
    }

    @Test func redirectionsAreRead() {
        func read(_ text: String) -> RedisRedirection? { RedisRedirection(text, asked: asked) }
        #expect(
            read("MOVED 3999 ::1:6381") == .moved(slot: 3999, .tcp(host: "::1", port: 6381)))
        #expect(read("MOVED 3999 :6381") == .moved(slot: 3999, .tcp(host: "10.0.0.9", port: 6381)))
        #expect(read("ASK 1 h:2") == .ask(.tcp(host: "h", port: 2)))
        #expect(read("TRYAGAIN Multiple keys") == .again)
        #expect(read("CLUSTERDOWN The cluster is down") == .again)
        #expect(
            read("ERR Script attempted to access a non local key in a cluster node") == .again)
        for text in ["MOVED", "MOVED x h:1", "MOVED 16384 h:1", "MOVED 1 h", "ASK 1 h:0", "ERR x"] {
            #expect(read(text) == nil)
        }
    }

    @Test func mapsAreReadOrRefusedWhole() throws {
        func range(_ first: Int64, _ last: Int64, _ host: String, _ port: Int64) -> RedisReply {
            .array([
                .integer(first), .integer(last),
                .array([.string(Array(host.utf8)), .integer(port), .string(Array("id".utf8))]),
            ])
        }
        let map = try #require(
            RedisSlots.owners(
                .array([range(0, 100, "a", 1), range(101, 16_383, "", 2)]), asked: asked))
        #expect(map[0] == .tcp(host: "a", port: 1) && map[100] == .tcp(host: "a", port: 1))
        #expect(map[101] == .tcp(host: "10.0.0.9", port: 2) && map[16_383] == map[101])
        let wrong: [RedisReply] = [
            .null, .array([.integer(1)]), .array([range(5, 4, "a", 1)]),
            .array([range(0, 16_384, "a", 1)]), .array([range(0, 1, "a", 70_000)]),
        ]
        for reply in wrong { #expect(RedisSlots.owners(reply, asked: asked) == nil) }
    }

    @Test func theSentinelWithTheNewestConfigurationIsBelieved() {
        func primary(_ host: String, _ epoch: Int64) -> SentinelServer.Primary {
            .init(address: .tcp(host: host, port: 1), configurationEpoch: epoch, replicas: 1)
        }
        let found = [primary("cut-off", 3), primary("new", 4), primary("also", 4)]
        #expect(SentinelServer.newest(of: found)?.address == .tcp(host: "new", port: 1))
        #expect(SentinelServer.newest(of: []) == nil)
        let fields: [RedisReply] = ["ip", "h", "port", "7", "config-epoch", "2", "num-slaves", "3"]
            .map { .string(Array($0.utf8)) }
        let read = SentinelServer.primary(.array(fields))
        #expect(read?.configurationEpoch == 2 && read?.replicas == 3)
        #expect(SentinelServer.primary(.null) == nil)
    }
}
