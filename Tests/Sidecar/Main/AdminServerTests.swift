import Testing
import WeirCore

@testable import SidecarCore
@testable import SidecarWiring

@Suite struct AdminServerTests {
    @Test func pagesAreServed() throws {
        let metrics = Metrics()
        let family = metrics.family(.counter, "weir_x_total", help: "X.")
        metrics.shard().add(metrics.series(family))
        let loop = try EventLoop()
        let server = try AdminServer(on: .loopback(port: 0), loop: loop, metrics: metrics) {
            var state = AdminPages.State()
            state.notReady = ["no policy yet"]
            return state
        }
        let thread = try LoopThread(loop, name: "admin")
        defer {
            loop.stop()
            thread.join()
        }
        let client = TestSocket(to: server.address)
        client.send(get("/metrics"))
        let answer = try #require(client.readResponse())
        #expect(answer.status == 200 && answer.text.hasSuffix("weir_x_total 1\n"))
        #expect(answer["content-type"]?.hasPrefix("text/plain; version=0.0.4") == true)
        client.send(get("/readyz"))
        #expect(client.readResponse()?.status == 503)
        client.send(get("/other"))
        #expect(client.readResponse()?.status == 404)
        client.send(post("/metrics", ""))
        #expect(client.readResponse()?.status == 405)
    }
}
