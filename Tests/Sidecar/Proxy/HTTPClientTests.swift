import Glibc
import Testing
import WeirCore

@testable import SidecarCore

/// Requests of our own whose answers come piece by piece, relayed by a local handler as the gateway
/// does it.
@Suite(.timeLimit(.minutes(1))) struct HTTPClientTests {
    private func relay(to upstream: TestUpstream) throws -> ProxyFixture {
        try ProxyFixture([]) { target, log in
            Relay(target: target, outcomes: log, upstream: upstream.address)
        }
    }

    private final class Relay: TestInterceptor {
        private let handler: LocalHandler

        init(target: UpstreamTarget, outcomes: OutcomeLog, upstream: SocketAddress) {
            let worker = target.worker
            let own = UpstreamTarget(name: "own", worker: worker, addresses: [upstream])
            let client = HTTPClient(worker: worker)
            handler = LocalHandler { request in
                do {
                    let answer = try await client.open(
                        ClientRequest(target: request.path), to: own,
                        deadlineNanoseconds: 20_000_000_000)
                    return LocalResponse(
                        status: answer.response.status,
                        body: .stream { writer in
                            while let bytes = try await answer.next() {
                                try await writer.write(bytes)
                            }
                            writer.addTrailer(
                                "weir-cost-usd", answer.trailer("weir-cost-usd") ?? "-")
                        }, trailerNames: "weir-cost-usd")
                } catch {
                    let reason = (error as? ClientError)?.reason ?? .upstreamError
                    return LocalResponse(status: reason.status, body: .bytes([]))
                }
            }
            super.init(target: target, outcomes: outcomes)
        }

        override func requestBegan(_ exchange: Exchange) -> Verdict { .local(handler) }
    }

    private static let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

    @Test func eachPieceLeavesAtOnceAndTrailersFollow() throws {
        let goOn = Signal()
        let upstream = try TestUpstream { _, socket in
            _ = socket.readHead()
            socket.send(Self.head + "3\r\none\r\n")
            guard goOn.wait() else { return }
            socket.send("3\r\ntwo\r\n0\r\nweir-cost-usd: 0.5\r\n\r\n")
            _ = socket.readLine()
        }
        let proxy = try relay(to: upstream)
        let client = proxy.client()
        client.send(get("/"))
        let head = try #require(client.readHead())
        #expect(head.status == 200 && head["trailer"] == "weir-cost-usd")
        // The rest waits for this.
        #expect(client.readLine() == "3" && client.read(5) == Array("one\r\n".utf8))
        goOn.set()
        #expect(client.readLine() == "3" && client.read(5) == Array("two\r\n".utf8))
        #expect(client.readLine() == "0" && client.readLine() == "weir-cost-usd: 0.5")
    }

    @Test func anUpstreamThatBreaksOffIsSeenByTheClient() throws {
        let goOn = Signal()
        let upstream = try TestUpstream { _, socket in
            _ = socket.readHead()
            socket.send(Self.head + "3\r\none\r\n")
            _ = goOn.wait()
        }
        let proxy = try relay(to: upstream)
        let client = proxy.client()
        client.send(get("/"))
        #expect(client.readHead()?.status == 200)
        #expect(client.readLine() == "3" && client.read(5) == Array("one\r\n".utf8))
        goOn.set()
        // No last chunk, no trailers: the connection is cut.
        #expect(client.isClosedByPeer())
    }

    @Test func whatIsNotReadIsNotTakenAndAClientThatLeavesCancels() throws {
        let sent = Counter()
        let closed = Signal()
        let upstream = try TestUpstream { _, socket in
            _ = socket.readHead()
            socket.send(Self.head)
            let piece = "8000\r\n" + String(repeating: "x", count: 32_768) + "\r\n"
            // More than all the buffers of the way can hold.
            while sent.count < 4_096, socket.send(piece) { sent.increment() }
            closed.set()
        }
        let proxy = try relay(to: upstream)
        let client = proxy.client()
        client.send(get("/"))
        #expect(client.readHead()?.status == 200)
        var before = -1
        #expect(
            eventually {
                // tidy: the pause between two looks at a counter
                usleep(50_000)
                defer { before = sent.count }
                return sent.count == before && before > 0
            })
        #expect(sent.count < 4_096 && !closed.isSet)
        let held = proxy.onLoop { $0.loop.pool.lentBytes }
        #expect(held < 1 << 20, "\(held) bytes are held")
        client.reset()
        #expect(closed.wait())
        #expect(sent.count < 4_096)
        #expect(eventually { proxy.onLoop { $0.loop.pool.lentBytes } == 0 })
    }
}
