import Foundation
import Testing
import WeirCore

/// Hostile conversations with a gateway and with a sidecar: each gets the right status and the
/// connection's end, nothing of any reaches an agent, and 100,000 of them leave nothing behind.
@Suite(.serialized, .timeLimit(.minutes(5))) struct HostileTests {
    private static let agents = ["finbert", "llama2-7b"]

    static func gatewayDoor(_ mesh: Mesh) -> Door {
        let auth = mesh.userHeaders("alice", tier: "premium")["authorization"] ?? ""
        let body = "{\(AnalyzeConversations.member)}"
        let head =
            "POST /analyze HTTP/1.1\r\nHost: a\r\nAuthorization: \(auth)\r\n"
            + "Content-Type: application/json\r\n"
        return Door(
            name: "gateway", port: mesh.gatewayPort,
            good: head + "Content-Length: \(body.utf8.count)\r\n\r\n" + body,
            chunkedHead: head + "Transfer-Encoding: chunked\r\n\r\n")
    }

    static func sidecarDoor(_ alone: Standalone) -> Door {
        let body = Standalone.body()
        let head =
            "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        return Door(
            name: "sidecar", port: alone.port,
            good: head + "Content-Length: \(body.utf8.count)\r\n\r\n" + body,
            chunkedHead: head + "Transfer-Encoding: chunked\r\n\r\n")
    }

    private func check(
        _ conversations: [Conversation], at door: Door
    ) throws {
        for conversation in conversations {
            let heard = try conversation.hold(at: door)
            #expect(heard.statuses == conversation.answers, "\(door.name): \(conversation.name)")
            #expect(heard.lastReason == conversation.reason, "\(door.name): \(conversation.name)")
            #expect(heard.isClosed, "\(door.name): \(conversation.name) stays open")
        }
    }

    private static func bodies(
        _ path: String, member: String, _ fields: String
    ) -> [Conversation] {
        BodyConversations.documents(member: member).map {
            BodyConversations.conversation($0, path, fields)
        }
    }

    static func atTheGateway(authorization: String) -> [Conversation] {
        let fields = "Authorization: \(authorization)\r\n"
        return WireConversations.all
            + bodies("/analyze", member: AnalyzeConversations.member, fields)
            + AnalyzeConversations.rows.map {
                BodyConversations.conversation($0, "/analyze", fields)
            } + AnalyzeConversations.heads(authorization: authorization)
    }

    static func atTheSidecar() -> [Conversation] {
        let member = #""model":"llama","messages":[{"role":"user","content":"Shares rose"}]"#
        return WireConversations.all + bodies("/v1/chat/completions", member: member, "")
    }

    @Test func theTableHasAHundredRowsForEachDoor() {
        let wire = WireConversations.all.map(\.name)
        #expect(wire.count >= 100)
        #expect(Set(wire).count == wire.count, "two conversations have one name")
    }

    @Test func aSidecarEndsThemAndForwardsNothing() async throws {
        try await Standalone.run { alone in
            let door = Self.sidecarDoor(alone)
            try check(Self.atTheSidecar(), at: door)
            #expect(try await alone.agents.count("requests", of: Standalone.agent) == 0)
            // The door was open all the time.
            #expect(try await alone.complete().status == 200)
            #expect(alone.part.process.isRunning)
        }
    }

    @Test func aGatewayEndsThemAndForwardsNothing() async throws {
        try await Mesh.run(Mesh.Options(agents: Self.agents)) { mesh in
            let door = Self.gatewayDoor(mesh)
            let auth = mesh.userHeaders("alice", tier: "premium")["authorization"] ?? ""
            try check(Self.atTheGateway(authorization: auth), at: door)
            for agent in Self.agents {
                #expect(try await mesh.agents.count("requests", of: agent) == 0)
            }
            #expect(try await mesh.analyze("{\(AnalyzeConversations.member)}").status == 200)
        }
    }

    @Test func tokensThatNobodyMayComeInWith() async throws {
        try await Mesh.run(Mesh.Options(agents: Self.agents)) { mesh in
            let now = Int64(Date().timeIntervalSince1970)
            var served = 0
            for row in TokenConversations.rows(key: Mesh.userKey, now: now) {
                let answer = try await mesh.gateway.post(
                    "/analyze", "{\(AnalyzeConversations.member)}",
                    headers: ["authorization": "Bearer " + row.token])
                if let reason = row.reason {
                    #expect(answer.status == (reason == "forbidden" ? 403 : 401), "\(row.name)")
                    #expect(try answer.json()["reason"]?.string == reason, "\(row.name)")
                } else {
                    #expect(answer.status == 200, "\(row.name): \(answer.text)")
                    served += 1
                }
            }
            #expect(try await mesh.agents.count("requests", of: "finbert") == served)
            for agent in Self.agents {
                // Nothing of a token is in a log.
                #expect(!mesh.logs.contains("eyJ"), "\(agent)")
            }
        }
    }

    /// Agents' sidecars take a gateway's delegations only.
    @Test func aSidecarOfTheMeshTakesNobodysWord() async throws {
        try await Mesh.run(Mesh.Options(agents: ["llama2-7b"])) { mesh in
            let sidecar = try mesh.sidecar("llama2-7b")
            let said: [([String: String], Int)] = [
                ([:], 401), (["weir-subject": "alice", "weir-tier": "enterprise"], 401),
                (mesh.userHeaders("alice", tier: "enterprise"), 401), (mesh.adminHeaders, 401),
                (["weir-delegation": ""], 403), (["weir-delegation": "AAAA.AAAA"], 403),
                (["weir-delegation": String(repeating: "A", count: 4_000) + ".AAAA"], 403),
            ]
            for (fields, status) in said {
                let answer = try await sidecar.post(
                    "/v1/chat/completions", Standalone.body(), headers: fields)
                #expect(answer.status == status, "\(fields)")
            }
            #expect(try await mesh.agents.count("requests", of: "llama2-7b") == 0)
        }
    }
}
