import Testing
import WeirCore

@testable import ControlPlaneStore

/// A real Redis behind TLS, which asks clients for a certificate as it does by default.
@Suite(.timeLimit(.minutes(1))) struct RedisTLSTests {
    private func refusal(_ url: String, _ files: RedisTLSFiles) async throws -> String? {
        let redis = try Redis(url: url, tls: files)
        await #expect(throws: RedisError.timeout(maybeExecuted: false)) {
            try await redis.command(["PING"], timeoutNanoseconds: 300_000_000)
        }
        return redis.connectionProblem
    }

    @Test func commandsAndHintsGoThroughTLS() async throws {
        let tls = try TestRedisTLS()
        let server = try RedisNode.server(tls: tls)
        let redis = try Redis(url: "rediss://localhost:\(server.port)/1", tls: tls.files)
        let large = String(repeating: "x", count: 3 << 20)
        try await redis.command(["SET", "large", large])
        #expect(try await redis.read("GET", "large").text == large)
        var hints = redis.subscribe(["news"]).makeAsyncIterator()
        #expect(await hints.next() == .subscribed)
        try await redis.command(["PUBLISH", "news", "one"])
        #expect(await hints.next() == .message(channel: "news", payload: "one"))
        // An address has to be in the certificate, as a name has.
        let byAddress = try Redis(url: "rediss://127.0.0.1:\(server.port)", tls: tls.files)
        #expect(try await byAddress.read("PING").text == "PONG")
    }

    @Test func aServerThatIsNotTrustedHearsNothing() async throws {
        let tls = try TestRedisTLS()
        let server = try RedisNode.server(tls: tls)
        let url = "rediss://localhost:\(server.port)"
        var files = tls.files
        files.authorities = "\(tls.folder)/other-ca.pem"
        let untrusted = try await refusal(url, files)
        #expect(untrusted?.contains("the certificate was refused") == true)
        // Without a certificate of its own a client is refused by the server.
        let stranger = try await refusal(url, RedisTLSFiles(authorities: tls.files.authorities))
        #expect(stranger != nil)
        // And plaintext is no TLS.
        #expect(try await refusal("redis://localhost:\(server.port)", RedisTLSFiles()) != nil)
    }

    @Test func aCertificateForAnotherNameIsRefused() async throws {
        let tls = try TestRedisTLS()
        let server = try RedisNode.start(tls: tls, expecting: "mismatch") { ports, folder in
            RedisNode.durable(ports, folder, tls, certificate: "other-name")
        }
        let problem = try await refusal("rediss://localhost:\(server.port)", tls.files)
        #expect(problem?.contains("ostname mismatch") == true)
    }

    @Test func filesThatCannotBeUsedAreSaidAtOnce() throws {
        let tls = try TestRedisTLS()
        func problems(_ files: RedisTLSFiles) -> [String] {
            do {
                _ = try RedisTLS(files)
                return []
            } catch {
                return error.list.map(\.path)
            }
        }
        #expect(problems(tls.files).isEmpty)
        #expect(problems(RedisTLSFiles(authorities: "/nowhere")) == ["REDIS_CA_FILE"])
        #expect(
            problems(RedisTLSFiles(authorities: "/nowhere", certificate: "/nowhere"))
                == ["REDIS_CA_FILE", "REDIS_KEY_FILE"])
        var files = tls.files
        files.key = "\(tls.folder)/server-key.pem"
        #expect(problems(files) == ["REDIS_KEY_FILE"])
        files.key = "\(tls.folder)/locked-key.pem"
        #expect(problems(files) == ["REDIS_KEY_FILE"])
        files.certificate = "/nowhere"
        #expect(problems(files) == ["REDIS_CERT_FILE"])
    }
}
