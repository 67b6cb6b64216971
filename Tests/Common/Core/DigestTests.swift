import Testing
import WeirCore

@Suite struct DigestTests {
    @Test func bytesComeBackInTheirOrder() throws {
        let bytes = (0..<32).map { UInt8($0 * 7) }
        let digest = try #require(Digest(bytes: bytes))
        #expect(digest.bytes == bytes)
        #expect(digest.hexadecimal.hasPrefix("00070e15") && digest.hexadecimal.utf8.count == 64)
        #expect(digest == Digest(bytes: ArraySlice(bytes)))
    }

    @Test(arguments: [0, 31, 33, 64])
    func anotherLengthIsNone(count: Int) {
        #expect(Digest(bytes: [UInt8](repeating: 1, count: count)) == nil)
    }
}
