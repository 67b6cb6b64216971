import Testing
import WeirCore

@testable import SidecarCore

@Suite struct AdminInterceptorTests {
    @Test func pagesAreServed() throws {
        let metrics = Metrics()
        let family = metrics.family(.counter, "weir_x_total", help: "X.")
        metrics.shard().add(metrics.series(family))
        var state = AdminPages.State()
        state.notReady = ["no policy yet"]
        let shown = state
        let fixture = try ProxyFixture([]) { _, _ in
            AdminInterceptor(metrics: metrics) { shown }
        }
        let client = fixture.client()
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
