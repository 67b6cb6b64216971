import Glibc
import Testing

@testable import SidecarCore

@Suite struct SidecarServerTests {
    private func connects(to address: SocketAddress) -> Bool {
        let raw = socket(address.family, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(raw) }
        return address.withSockaddr { connect(raw, $0, $1) } == 0
    }

    /// Clients of a server that has ended are refused, and do not wait in a queue of nobody's.
    @Test func nobodyListensAfterTheEnd() throws {
        let server = try SidecarServer(
            ServerConfiguration(listen: .loopback(port: 0), workers: 2)
        ) { _ in LocalInterceptor { _, _ in nil } }
        #expect(connects(to: server.address))
        server.stop()
        for _ in 0..<4 { #expect(!connects(to: server.address)) }
    }
}
