import Foundation
import Testing
import WeirCore

/// 60,000 hostile conversations with a gateway and 40,000 with a sidecar: each has as many
/// descriptors and as much memory afterwards as it had when it was warm.
extension HostileTests {
    @Suite(.serialized) struct LeakTests {
        static let warmUp = 5_000
        /// What the allocator may keep in other places than before. One lost buffer, connection or
        /// exchange for each conversation would be far more: 100 bytes each are 4 MB.
        static let growthMaxKiB = 2_048

        @Test func aGatewayLosesNothing() async throws {
            try await Mesh.run(Mesh.Options(agents: ["finbert", "llama2-7b"])) { mesh in
                let door = HostileTests.gatewayDoor(mesh)
                let auth = mesh.userHeaders("alice", tier: "premium")["authorization"] ?? ""
                let conversations = HostileTests.atTheGateway(authorization: auth)
                try await soak(
                    try mesh.part("gateway"), conversations, at: door, count: 60_000)
                #expect(try await mesh.agents.count("requests", of: "finbert") == 0)
                #expect(try await mesh.analyze("{\(AnalyzeConversations.member)}").status == 200)
            }
        }

        @Test func aSidecarLosesNothing() async throws {
            try await Standalone.run { alone in
                let door = HostileTests.sidecarDoor(alone)
                try await soak(alone.part, HostileTests.atTheSidecar(), at: door, count: 40_000)
                #expect(try await alone.agents.count("requests", of: Standalone.agent) == 0)
                #expect(try await alone.complete().status == 200)
            }
        }

        private func soak(
            _ part: MeshPart, _ conversations: [Conversation], at door: Door, count: Int
        ) async throws {
            try await hold(conversations, at: door, count: Self.warmUp)
            try await eventually("connections are closed") { try descriptors(part) < 64 }
            let before = (try descriptors(part), try residentKiB(part))
            try await hold(conversations, at: door, count: count)
            try await eventually("\(before.0) descriptors again") {
                try descriptors(part) <= before.0
            }
            let after = try residentKiB(part)
            #expect(after - before.1 < Self.growthMaxKiB, "\(before.1) KiB, then \(after) KiB")
            #expect(part.process.isRunning)
        }

        /// Four at once, each its share of the turns, the whole table again and again. On threads
        /// of their own, because a conversation blocks.
        private func hold(
            _ conversations: [Conversation], at door: Door, count: Int
        ) async throws {
            let hands = 4
            try await withThrowingTaskGroup(of: Void.self) { group in
                for hand in 0..<hands {
                    group.addTask {
                        try await onThread {
                            for turn in stride(from: hand, to: count, by: hands) {
                                try conversations[turn % conversations.count].mustHold(at: door)
                            }
                        }
                    }
                }
                try await group.waitForAll()
            }
        }

        private func descriptors(_ part: MeshPart) throws -> Int {
            try FileManager.default.contentsOfDirectory(atPath: "/proc/\(part.process.pid)/fd")
                .count
        }

        /// Anonymous memory: pages of files come and go by the kernel's will.
        private func residentKiB(_ part: MeshPart) throws -> Int {
            let status = try String(
                contentsOfFile: "/proc/\(part.process.pid)/status", encoding: .utf8)
            let line = status.split(separator: "\n").first { $0.hasPrefix("RssAnon:") }
            return line?.split(whereSeparator: { $0 == " " || $0 == "\t" }).dropFirst().first
                .flatMap { Int($0) } ?? 0
        }
    }
}

/// Runs what blocks on a thread of its own.
private func onThread(_ body: @escaping @Sendable () throws -> Void) async throws {
    try await withCheckedThrowingContinuation { continuation in
        Thread { continuation.resume(with: Result { try body() }) }.start()
    }
}

extension Conversation {
    fileprivate func mustHold(at door: Door) throws {
        let heard = try hold(at: door)
        guard heard.statuses == answers, heard.isClosed else {
            throw TestProcess.Failed(description: "\(door.name): \(name): \(heard)")
        }
    }
}
