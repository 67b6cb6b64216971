import Testing
import WeirCore
import WeirLedger
import WeirPolicy

@testable import WeirMeshProtocol

@Suite struct VitalsTests {
    private func roundTrip<T: Codable & Equatable>(_ value: T) throws {
        #expect(try JSON.decode(T.self, from: try JSON.encode(value)) == value)
    }

    @Test func theStateOfAMeshComesBack() throws {
        var calls = CallSummary()
        calls.successes = 7
        calls.latencies = [1, 2]
        let agent = AgentVitals(
            endpoints: [.init(address: "a:1", breaker: .halfOpen, since: UnixTime(seconds: 9))],
            isHealthy: nil, calls: calls, waiting: 3,
            lastError: LastError(reason: "deadline", at: UnixTime(seconds: 8)))
        var gateway = GatewayVitals()
        gateway.requests = [.init(type: "news", tier: "free", status: "partial", count: 2)]
        gateway.detours = [
            .init(kind: .fallback, from: "a", to: "b", reason: "circuit_open", count: 1)
        ]
        let health = SidecarHealth(
            state: .degraded, reasons: ["r"], requestsInFlight: 1, journalBytes: 2,
            since: UnixTime(seconds: 5), agent: agent, gateway: gateway)
        try roundTrip(
            MeshState(
                at: UnixTime(seconds: 10),
                members: [
                    .init(
                        incarnation: Incarnation(4), role: .agent, agent: "a", endpoint: "h:1",
                        instance: "pod", silentMilliseconds: 12,
                        policy: PolicyVersion(epoch: 1, number: 2, hash: "ab"),
                        hasRefusedPolicy: true, health: health)
                ], omitted: 3))
    }

    @Test func aReportOfBeforeHasNone() throws {
        let text = #"{"state":"serving","reasons":[],"requestsInFlight":0,"journalBytes":1}"#
        let health = try JSON.decode(SidecarHealth.self, from: Array(text.utf8))
        #expect(health.agent == nil && health.gateway == nil && health.since == nil)
    }

    @Test(
        arguments: [
            ([], 0.5, nil), ([0, 0], 0.5, nil),
            // Ten below 1 ms: the middle of the first bucket.
            ([10], 0.5, 0.5), ([10, 10], 0.5, 1), ([10, 10], 0.75, 1.5),
            // What is above the last bound is that bound.
            (Array(repeating: 0, count: 15) + [4], 0.5, 60_000),
        ] as [([Int64], Double, Double?)])
    func quantiles(counts: [Int64], share: Double, expected: Double?) {
        #expect(LatencyBuckets.quantile(share, of: counts) == expected)
    }

    @Test func summariesAddUp() {
        var left = CallSummary()
        (left.successes, left.failures, left.latencies) = (3, 1, [1, 2])
        left.windowMilliseconds = 60_000
        var right = left
        right.latencies = [1, 0, 5]
        right.windowMilliseconds = 10_000
        left.add(right)
        #expect(left.successRate == 0.75)
        #expect(left.latencies == [2, 2, 5])
        #expect(left.windowMilliseconds == 60_000)
        // A list of somebody else's making is cut to what the buckets are.
        #expect(LatencyBuckets.sum(Array(repeating: 1, count: 500), []).count == 16)
    }
}
