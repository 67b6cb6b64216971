import Foundation
import WeirCore

/// Several instances of FinBERT, each a process of its own with its own faults.
final class Instances: Sendable {
    let agents: [SampleAgentsProcess]

    private init(_ agents: [SampleAgentsProcess]) { self.agents = agents }

    /// Starts them, runs the test, and takes them down however the test ends.
    static func run(_ count: Int, _ test: (Instances) async throws -> Void) async throws {
        let folders = try (0..<count).map { _ in try TemporaryFolder() }
        defer { for folder in folders { folder.remove() } }
        var agents: [SampleAgentsProcess] = []
        do {
            for folder in folders {
                agents.append(try await SampleAgentsProcess(["finbert"], folder: folder))
            }
            try await test(Instances(agents))
        } catch {
            for agent in agents { await agent.process.dispose() }
            throw error
        }
        for agent in agents { await agent.process.dispose() }
    }

    func port(_ index: Int) throws -> UInt16 { try agents[index].port("finbert") }

    func requests(_ index: Int) async throws -> Int {
        try await agents[index].count("requests", of: "finbert")
    }

    func setFault(_ index: Int, _ kind: String, argument: Int? = nil) async throws {
        try await agents[index].setFault("finbert", kind, argument: argument)
    }

    /// Requests by instance.
    func counts() async throws -> [Int] {
        var counts: [Int] = []
        for index in agents.indices { counts.append(try await requests(index)) }
        return counts
    }

    /// So many requests, eight at a time; how many were answered with 200.
    static func load(_ count: Int, _ request: @escaping @Sendable (Int) async throws -> Int)
        async throws -> Int
    {
        try await withThrowingTaskGroup(of: Bool.self) { group in
            var succeeded = 0
            for index in 0..<count {
                if index >= 8 { succeeded += try await group.next() == true ? 1 : 0 }
                group.addTask { try await request(index) == 200 }
            }
            for try await isFine in group where isFine { succeeded += 1 }
            return succeeded
        }
    }

    /// A sample of a scrape: the value behind a name and labels.
    static func sample(_ admin: Endpoint, _ start: String) async throws -> String? {
        try await admin.get("/metrics").text.split(separator: "\n")
            .first { $0.hasPrefix(start) }?.split(separator: " ").last.map(String.init)
    }
}
