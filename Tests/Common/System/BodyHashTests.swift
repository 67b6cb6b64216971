import Testing
import WeirCore
import WeirCrypto

@Suite struct BodyHashTests {
    private func digest(_ parts: [[UInt8]], with hash: inout BodyHash) -> Digest {
        for part in parts {
            part.withUnsafeBytes { hash.update($0) }
        }
        return hash.finish()
    }

    @Test func partsGiveWhatTheWholeGives() throws {
        var hash = BodyHash()
        let body = (0..<10_000).map { UInt8(truncatingIfNeeded: $0 * 31) }
        let whole = try #require(Digest(bytes: Crypto.sha256(body)))
        for size in [1, 63, 64, 65, 4_096, 10_000] {
            let parts = stride(from: 0, to: body.count, by: size).map {
                Array(body[$0..<min(body.count, $0 + size)])
            }
            #expect(digest(parts, with: &hash) == whole, "in parts of \(size)")
        }
    }

    @Test func nothingHasADigestToo() {
        var hash = BodyHash()
        #expect(hash.finish().bytes == Crypto.sha256([]))
        #expect(digest([[], []], with: &hash) == .ofNothing)
        #expect(digest([[1]], with: &hash).bytes == Crypto.sha256([1]))
        #expect(hash.finish() == .ofNothing)
    }

    @Test func whatIsForgottenDoesNotCount() {
        var hash = BodyHash()
        [1, 2, 3].withUnsafeBytes { hash.update($0) }
        hash.reset()
        #expect(digest([[9]], with: &hash).bytes == Crypto.sha256([9]))
    }
}
