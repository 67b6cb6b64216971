import Testing
import WeirCore

@testable import ControlPlaneStore

@Suite(.timeLimit(.minutes(1))) struct RedisURLTests {
    private func tcp(_ host: String, _ port: UInt16) -> RedisURL.Address {
        .tcp(host: host, port: port)
    }

    @Test func readsTheFormsOfOneServer() throws {
        let url = try RedisURL(parsing: "redis://ann:p%40ss@localhost:7000/3")
        #expect(url.topology == .single(tcp("localhost", 7000)) && !url.isEncrypted)
        #expect(url.login == RedisURL.Login(user: "ann", password: "p@ss") && url.database == 3)
        let plain = try RedisURL(parsing: "redis://:sec/r?t@[::1]")
        #expect(plain.topology == .single(tcp("::1", 6379)))
        #expect(plain.login == RedisURL.Login(password: "sec/r?t") && plain.database == 0)
        let unix = try RedisURL(parsing: "unix:///run/redis.sock?db=2")
        #expect(unix.topology == .single(.unix(path: "/run/redis.sock")) && unix.database == 2)
        let encrypted = try RedisURL(parsing: "rediss://redis.example")
        #expect(encrypted.isEncrypted)
        #expect(encrypted.topology == .single(tcp("redis.example", 6379)))
    }

    @Test func readsSentinelsAndClusters() throws {
        let url = try RedisURL(
            parsing: "rediss+sentinel://u:p@a,b:1,[::1]:2/my%20primary/4"
                + "?sentinel_user=s&sentinel_password=%26q")
        let hosts = [tcp("a", 26379), tcp("b", 1), tcp("::1", 2)]
        let login = RedisURL.Login(user: "s", password: "&q")
        #expect(url.topology == .sentinel(hosts, name: "my primary", login: login))
        #expect(url.isEncrypted && url.database == 4)
        #expect(url.login == RedisURL.Login(user: "u", password: "p"))
        let cluster = try RedisURL(parsing: "redis+cluster://:p@a,b:7001/0")
        #expect(cluster.topology == .cluster([tcp("a", 6379), tcp("b", 7001)]))
        #expect(cluster.login.password == "p" && !cluster.isEncrypted)
    }

    @Test(arguments: [
        "", "http://x", "redis://", "redis://h:0", "redis://h:99999", "redis://h/x",
        "unix://relative", "redis://user@h", "redis://:%zz@h", "redis://:%+1@h", "redis://a,b",
        "redis://h?db=1", "redis+sentinel://a,b", "redis+sentinel://a,,b/name",
        "redis+sentinel://a/name?sentinel_user=x", "redis+sentinel://a/name?master=x",
        "redis+cluster://a/1", "redis+cluster://", "rediss+unix:///x",
    ])
    func refuses(_ text: String) {
        #expect(throws: RedisError.self) { try RedisURL(parsing: text) }
    }

    @Test func saysAllThatIsWrongAndNoSecret() {
        do {
            _ = try RedisURLParser.parse("redis+cluster://secret@a:0,,b:x/7?q=hidden")
            Issue.record("it was taken")
        } catch {
            #expect(error.list.count == 6)
            #expect(!"\(error)".contains("secret") && !"\(error)".contains("hidden"))
        }
    }
}
