import Foundation
import Testing
import WeirCore

/// The harness itself: a fault here would make every other integration test lie.
@Suite(.timeLimit(.minutes(1)))
struct HarnessTests {
    private func withFolder(_ test: (TemporaryFolder) async throws -> Void) async throws {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        try await test(folder)
    }

    @Test func `a poll gives up after its bound and says what it waited for`() async throws {
        let error = await #expect(throws: NeverHappened.self) {
            try await eventually("pigs fly", within: .milliseconds(50)) { false }
        }
        #expect(error?.description.contains("pigs fly") == true)
    }

    @Test func `free ports are all different`() throws {
        let ports = try (0..<50).map { _ in try Ports.free() }
        #expect(Set(ports).count == 50)
    }

    @Test func `a process that ignores SIGTERM is gone in the end`() async throws {
        try await withFolder { folder in
            let process = try TestProcess(
                "stubborn", executable: "/bin/sh",
                arguments: ["-c", "trap '' TERM; echo up; while :; do sleep 0.1; done"],
                folder: folder)
            _ = try await process.line(containing: "up")
            await process.dispose()
            #expect(!process.isRunning)
            #expect(Glibc.kill(process.pid, 0) == -1)
        }
    }

    @Test func `a paused process neither ends nor answers until it is resumed`() async throws {
        try await withFolder { folder in
            let redis = try await PrivateRedis(folder: folder)
            redis.process.pause()
            let connection = try RawConnection(port: redis.port)
            try connection.send("PING\r\n")
            #expect(connection.readToEnd(quietMilliseconds: 100).bytes.isEmpty)
            redis.process.resume()
            let answer = connection.readToEnd(quietMilliseconds: 500).bytes
            #expect(String(decoding: answer, as: UTF8.self) == "+PONG\r\n")
            await redis.process.dispose()
            #expect(!redis.process.isRunning)
        }
    }

    @Test func `what redis acknowledged survives kill -9`() async throws {
        try await withFolder { folder in
            let redis = try await PrivateRedis(folder: folder)
            #expect(try await redis.run(["HSET", "account", "granted", "5"]) == "1")
            try await redis.process.killAtOnce()
            let next = try await redis.restarted()
            #expect(try await next.hash("account") == ["granted": "5"])
            #expect(try await next.keys("acc*") == ["account"])
            await next.process.dispose()
        }
    }

    @Test func `rows of a database are read as JSON`() async throws {
        try await withFolder { folder in
            let path = folder.path("test.sqlite")
            _ = try await Tools.run(
                try Tools.path("sqlite3"),
                [path, "create table t(a, b); insert into t values(1,'x')"]
            )
            #expect(
                try await SQLiteFile(path: path).rows("select * from t") == [["a": 1, "b": "x"]])
            #expect(try await SQLiteFile(path: path).rows("select * from t where a = 2") == [])
        }
    }

    @Test func `tokens are signed as RFC 7515 says`() {
        // The first example of RFC 7515, appendix A.1, has CR LF and a space in its header.
        let key = Base64URLKey.rfc7515
        let token = TestToken.sign(
            header: "{\"typ\":\"JWT\",\r\n \"alg\":\"HS256\"}",
            payload: "{\"iss\":\"joe\",\r\n \"exp\":1300819380,\r\n "
                + "\"http://example.com/is_root\":true}",
            keyBytes: key)
        #expect(token.hasSuffix(".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"))
    }
}

private enum Base64URLKey {
    static let rfc7515 =
        Base64URL.decode(
            "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"
        ) ?? []
}
