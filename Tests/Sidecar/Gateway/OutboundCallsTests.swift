import Testing
import WeirCore
import WeirCrypto
import WeirLedger
import WeirMeshProtocol

@testable import SidecarCore
@testable import SidecarGateway

@Suite struct OutboundCallsTests {
    private let calls = OutboundCalls()

    /// `mood` is the first of the fixture's agents by name: its sidecar has incarnation 100.
    private func field(
        number: UInt64 = 1, key: [UInt8] = GatewayFixture.hopKey,
        _ change: (inout OutboundCall) -> Void = { _ in }
    ) -> String {
        var call = OutboundCall(
            keyID: 3, issuer: Incarnation(100), number: number, amount: NanoUSD(1_000),
            run: Identifier(high: 1, low: 2), subject: "alice", tenant: "", tier: "gold",
            knownBy: .user, requestType: "news", agent: "mood", path: "/agents/writer", depth: 1,
            remainingMilliseconds: 1_000)
        change(&call)
        return "Weir-Run " + Sealed.seal(call.payload, key: key)
    }

    private func reason(_ field: String?) throws -> Reason? {
        let snapshot = try GatewayFixture.snapshot()
        do throws(GatewayRefusal) {
            _ = try calls.open(field, path: "/outbound/agents/writer", snapshot)
            return nil
        } catch let error {
            return error.reason
        }
    }

    @Test func aGenuineCallIsTakenOnce() throws {
        #expect(try reason(field(number: 5)) == nil)
        #expect(try reason(field(number: 5)) == .forbidden)
        // Nearly in order is in order; too old to tell is seen.
        #expect(try reason(field(number: 4)) == nil)
        #expect(try reason(field(number: 4)) == .forbidden)
        let window = UInt64(GatewayLimits.callWindow)
        #expect(try reason(field(number: window + 5)) == nil)
        #expect(try reason(field(number: 5)) == .forbidden)
        #expect(try reason(field(number: 6)) == nil)
        #expect(try reason(field(number: 6)) == .forbidden)
        // A leap over the whole window forgets what was seen in it, and takes none of it again.
        #expect(try reason(field(number: 4 * window)) == nil)
        #expect(try reason(field(number: window + 5)) == .forbidden)
        #expect(try reason(field(number: 4 * window - 1)) == nil)
        #expect(try reason(field(number: .max)) == nil)
        #expect(try reason(field(number: .max)) == .forbidden)
    }

    @Test func whatNoSidecarOfThisMeshSealedIsForbidden() throws {
        for text in [
            nil, "", "Bearer x", "Weir-Run ", "Weir-Run x.y", field(key: [1, 2, 3]),
            field { $0.issuer = Incarnation(99) }, field { $0.keyID = 4 },
            field { $0.agent = "ghost" }, field { $0.agent = "writer" },
            field { $0.path = "/agents/scribe" },
        ] {
            #expect(try reason(text) == .forbidden)
        }
        #expect(try reason(field { $0.depth = GatewayLimits.callDepthMax + 1 }) == .forbidden)
        #expect(try reason(field { $0.remainingMilliseconds = 0 }) == .deadline)
        #expect(try reason(field()) == nil, "none of them counted as seen")
    }
}
