import NIOHTTP1
import Testing
import WeirCore
import WeirMeshProtocol
import WeirPolicy

@testable import ControlPlaneServer

@Suite("What sidecars say is visible to people", .timeLimit(.minutes(1)))
struct SidecarsTests {
    private func sidecars(_ server: TestControlPlane) async throws -> [JSONValue] {
        try await server.send(.GET, "/v1/sidecars").body["sidecars"]?.array ?? []
    }

    @Test func aRefusalIsShownInTheSidecarsWords() async throws {
        try await TestControlPlane.run { server in
            _ = try await server.put(try SamplePolicy.documents())
            let sidecar = try await server.joined()
            let before = try #require(try await sidecars(server).first)
            #expect(before["agent"] == "finbert")
            #expect(before["instance"] == "test-1")
            #expect(before["connected"] == true)
            #expect(before["policy"]?["state"] == "none")

            let read = try await server.send(.GET, "/v1/policy").body
            let version = try JSON.decode(
                PolicyVersion.self, from: try #require(read["version"]))
            var ack = PolicyAck(
                version: version, projectionHash: "00", applied: false,
                problems: [Problem(path: "/documents/0/spec", message: "too new for me")])
            #expect(try await sidecar.post(MeshPath.ack, ack).status == 204)
            let refused = try #require(try await sidecars(server).first)
            #expect(refused["policy"]?["state"] == "refused")
            #expect(
                refused["policy"]?["refused"]?["problems"] == [
                    ["path": "/documents/0/spec", "message": "too new for me"]
                ])

            ack.applied = true
            ack.problems = []
            _ = try await sidecar.post(MeshPath.ack, ack)
            let applied = try #require(try await sidecars(server).first)
            #expect(applied["policy"]?["state"] == "current")
            _ = try await server.put(try SamplePolicy.documents(budget: "7", ofTier: "free"))
            let behind = try #require(try await sidecars(server).first)
            #expect(behind["policy"]?["state"] == "behind")
        }
    }

    @Test func theSameVersionWithAnotherHashIsAnAlarm() async throws {
        try await TestControlPlane.run { server in
            _ = try await server.put(try SamplePolicy.documents())
            let sidecar = try await server.joined()
            let read = try await server.send(.GET, "/v1/policy").body
            var version = try JSON.decode(
                PolicyVersion.self, from: try #require(read["version"]))
            version.hash = String(repeating: "0", count: 64)
            let ack = PolicyAck(
                version: version, projectionHash: "00", applied: true, problems: [])
            _ = try await sidecar.post(MeshPath.ack, ack)
            let shown = try #require(try await sidecars(server).first)
            #expect(shown["alarm"]?.string?.contains("hash") == true)
            #expect(shown["policy"]?["state"] == "behind")
        }
    }

    @Test func healthComesFromTheReport() async throws {
        try await TestControlPlane.run { server in
            let sidecar = try await server.joined(agent: nil, instance: "gw-1")
            #expect(try await sidecar.report().status == 200)
            let shown = try #require(try await sidecars(server).first)
            #expect(shown["role"] == "gateway")
            #expect(shown["agent"] == nil)
            #expect(shown["health"]?["state"] == "serving")
            #expect(shown["health"]?["journal_bytes"]?.int64 == 1_024)
        }
    }
}
