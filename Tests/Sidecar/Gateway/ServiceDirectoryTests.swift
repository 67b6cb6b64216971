import Testing
import WeirCore
import WeirLedger
import WeirMeshProtocol

@testable import SidecarCore
@testable import SidecarGateway

@Suite struct ServiceDirectoryTests {
    private static func endpoint(_ agent: String, _ number: Int64, _ port: Int)
        -> Projection.Endpoint
    {
        Projection.Endpoint(
            agent: agent, incarnation: Incarnation(number), address: "10.0.0.1:\(port)",
            hopKey: HopKey(id: 1, secret: "a"))
    }

    private static func addresses(_ endpoints: [Projection.Endpoint]) -> [String] {
        endpoints.map { "\($0.incarnation) \($0.address)" }
    }

    @Test func sidecarsAreCalledWhereTheyWereFound() {
        let announced = [
            Self.endpoint("a", 1, 80), Self.endpoint("a", 2, 80), Self.endpoint("a", 3, 80),
            Self.endpoint("b", 4, 80),
        ]
        var service = ServiceDirectory.Service([.loopback(port: 1), .loopback(port: 2)])
        #expect(
            Self.addresses(ServiceDirectory.place(announced, ["a": service])) == ["4 10.0.0.1:80"])
        service.found = [.loopback(port: 1): Incarnation(2), .loopback(port: 2): Incarnation(1)]
        #expect(
            Self.addresses(ServiceDirectory.place(announced, ["a": service])) == [
                "1 127.0.0.1:2", "2 127.0.0.1:1", "4 10.0.0.1:80",
            ])
        #expect(
            Self.addresses(ServiceDirectory.place(announced, [:])) == Self.addresses(announced))
    }

    @Test func oneAddressAndOneSidecarBelongTogether() {
        let service = ServiceDirectory.Service([.loopback(port: 1)])
        let one = [Self.endpoint("a", 1, 80)]
        #expect(
            Self.addresses(ServiceDirectory.place(one, ["a": service])) == ["1 127.0.0.1:1"])
        let two = one + [Self.endpoint("a", 2, 80)]
        #expect(ServiceDirectory.place(two, ["a": service]).isEmpty, "which one is not known yet")
    }

    /// Two sidecars that say who they are, over the wire; then one takes the other's address.
    @Test func addressesAreAsked() throws {
        let agent = try TestUpstream { _ in nil }
        let (one, two) = (
            try AdmissionFixture(agent.address, life: Incarnation(7)),
            try AdmissionFixture(agent.address, life: Incarnation(8))
        )
        let (first, second) = (one.proxy, two.proxy)
        let nobody = SocketAddress.loopback(port: 1)
        let fixture = try ProxyFixture([])
        let directory = fixture.onLoop { worker in
            ServiceDirectory(
                ["a": [first.server.address, nobody, second.server.address]], loop: worker.loop)
        }
        let changes = Signal()
        let task = fixture.onLoop { _ in directory.start { changes.set() } }
        #expect(changes.wait())
        let announced = [Self.endpoint("a", 8, 80), Self.endpoint("a", 7, 80)]
        #expect(
            eventually {
                Self.addresses(directory.place(announced)) == [
                    "8 \(second.server.address)", "7 \(first.server.address)",
                ]
            })
        directory.update("a", addresses: [second.server.address])
        #expect(Self.addresses(directory.place(announced)) == ["8 \(second.server.address)"])
        #expect(agent.requestCount == 0, "nobody troubles the agent with it")
        task?.cancel()
        fixture.stop()
    }
}
