import Glibc
import Testing
import WeirCore

@testable import SidecarCore

/// Large bodies between a fast and a slow peer: everything arrives, and little is held meanwhile.
@Suite struct BackPressureTests {
    private static let bytes = 24 * 1024 * 1024
    /// Sockets of loopback hold megabytes; what we hold is one read and its framing per direction.
    private static let heldMax = 512 * 1024

    /// A block whose length shares no factor with any buffer, again and again.
    private static let body: [UInt8] = {
        let block = (0..<65_521).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) }
        var body: [UInt8] = []
        body.reserveCapacity(bytes + block.count)
        while body.count < bytes { body += block }
        return Array(body[..<bytes])
    }()

    private static func isSame(_ other: [UInt8]) -> Bool {
        other.count == body.count && memcmp(other, body, body.count) == 0
    }

    /// The most that the worker had lent while `condition` did not hold.
    private func largestLoan(_ proxy: ProxyFixture, until condition: () -> Bool) -> Int {
        var largest = 0
        _ = eventually {
            largest = max(largest, proxy.onLoop { $0.loop.pool.lentBytes })
            return condition()
        }
        return largest
    }

    @Test(arguments: [true, false])
    func aSlowUpstream(isChunked: Bool) throws {
        let start = Signal()
        let finished = Signal()
        let body = Self.body
        let upstream = try TestUpstream { upstream, socket in
            guard var request = socket.readHead() else { return }
            _ = start.wait()
            if isChunked {
                guard socket.readChunked(into: &request) else { return }
            } else {
                request.body = socket.read(Self.bytes) ?? []
            }
            socket.send(okay(Self.isSame(request.body) ? "same" : "different"))
            finished.set()
        }
        let proxy = try ProxyFixture(upstream)
        let client = proxy.client()
        Thread {
            if isChunked {
                client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
                for offset in stride(from: 0, to: body.count, by: 262_144) {
                    client.send("40000\r\n")
                    client.send(Array(body[offset..<(offset + 262_144)]))
                    client.send("\r\n")
                }
                client.send("0\r\n\r\n")
            } else {
                client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \(body.count)\r\n\r\n")
                client.send(body)
            }
        }.start()
        // tidy: time for a buffer without a bound to grow: what must not happen sends no event
        usleep(100_000)
        let before = largestLoan(proxy) { true }
        start.set()
        let during = largestLoan(proxy) { finished.isSet }
        #expect(max(before, during) < Self.heldMax)
        #expect(client.readResponse()?.text == "same")
    }

    @Test(arguments: [true, false])
    func aSlowClient(isChunked: Bool) throws {
        let body = Self.body
        let sent = Signal()
        let upstream = try TestUpstream { upstream, socket in
            _ = socket.readHead()
            if isChunked {
                socket.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                for offset in stride(from: 0, to: body.count, by: 262_144) {
                    socket.send("40000\r\n")
                    socket.send(Array(body[offset..<(offset + 262_144)]))
                    socket.send("\r\n")
                }
                socket.send("0\r\n\r\n")
            } else {
                socket.send("HTTP/1.1 200 OK\r\nContent-Length: \(body.count)\r\n\r\n")
                socket.send(body)
            }
            sent.set()
            _ = socket.readLine()
        }
        let proxy = try ProxyFixture(upstream)
        let client = proxy.client()
        client.send(get("/"))
        // tidy: time for a buffer without a bound to grow: what must not happen sends no event
        usleep(100_000)
        #expect(largestLoan(proxy) { true } < Self.heldMax)
        #expect(!sent.isSet)
        let response = try #require(client.readResponse())
        #expect(response.isWhole && Self.isSame(response.body))
        #expect(eventually { proxy.onLoop { $0.loop.pool.lentBytes } == 0 })
    }
}
