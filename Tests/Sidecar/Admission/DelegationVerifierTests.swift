import Testing
import WeirCore
import WeirCrypto
import WeirLedger
import WeirMeshProtocol

@testable import SidecarCore

private let secret = [UInt8](repeating: 7, count: 32)
private let verifier = DelegationVerifier(
    keys: [
        HopKey(id: 3, secret: Base64URL.encode(secret)),
        HopKey(id: 2, secret: Base64URL.encode([UInt8](repeating: 8, count: 32))),
    ], incarnation: Incarnation(12), agent: "finbert")

private func delegation(_ change: (inout Delegation) -> Void = { _ in }) -> Delegation {
    var delegation = Delegation(
        keyID: 3, issuer: Incarnation(4), audience: Incarnation(12),
        key: ChildKey(lease: LeaseID(incarnation: Incarnation(4), number: 9), child: 1),
        amount: NanoUSD(120_000), run: Identifier(high: 1, low: 2),
        request: Identifier(high: 3, low: 4), subject: "alice", tenant: "", tier: "free",
        requestType: "news_analysis", agent: "finbert", method: "POST", path: "/models/finbert",
        remainingMilliseconds: 900)
    change(&delegation)
    return delegation
}

private func failure(
    _ delegation: Delegation, key: [UInt8] = secret, method: String = "POST",
    target: String = "/models/finbert"
) -> DelegationVerifier.Failure? {
    do {
        _ = try verifier.verify(
            Sealed.seal(delegation.payload, key: key), method: method, target: target)
        return nil
    } catch {
        return error
    }
}

@Suite struct DelegationVerifierTests {
    @Test func acceptsWhatWasMeantForThisRequest() throws {
        let sealed = Sealed.seal(delegation().payload, key: secret)
        let accepted = try verifier.verify(sealed, method: "POST", target: "/models/finbert")
        #expect(accepted == delegation())
    }

    @Test func refusesEverythingElse() {
        #expect(failure(delegation { $0.audience = Incarnation(13) }) == .otherAudience)
        #expect(failure(delegation { $0.issuer = Incarnation(5) }) == .unreadable)
        #expect(failure(delegation { $0.agent = "llama" }) == .otherAgent)
        #expect(failure(delegation(), method: "PUT") == .otherMethod)
        #expect(failure(delegation(), target: "/models/finbert?x") == .otherPath)
        #expect(failure(delegation { $0.keyID = 9 }) == .unknownKey)
        #expect(failure(delegation(), key: [1]) == .badProof)
        #expect(failure(delegation { $0.keyID = 2 }) == .badProof)
        #expect(failure(delegation { $0.remainingMilliseconds = 0 }) == .deadlinePassed)
        #expect(DelegationVerifier.Failure.deadlinePassed.reason == .deadline)
        #expect(DelegationVerifier.Failure.badProof.reason == .forbidden)
    }

    @Test func anyChangedCharacterIsNoticed() {
        let sealed = Array(Sealed.seal(delegation().payload, key: secret).utf8)
        for index in sealed.indices {
            var changed = sealed
            changed[index] = changed[index] == UInt8(ascii: "A") ? UInt8(ascii: "B") : 65
            let text = String(decoding: changed, as: UTF8.self)
            let accepted = try? verifier.verify(
                text, method: "POST", target: "/models/finbert")
            #expect(accepted == nil, "character \(index)")
        }
        for text in ["", ".", "a.b", "....", String(repeating: "x", count: 100_000)] {
            #expect((try? verifier.verify(text, method: "POST", target: "/")) == nil)
        }
    }
}
