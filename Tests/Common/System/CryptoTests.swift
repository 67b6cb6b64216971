import Testing
import WeirCore
import WeirCrypto

@Suite struct CryptoTests {
    // FIPS 180-2, appendix B, and the empty message.
    @Test(arguments: [
        ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
        ),
    ])
    func sha256OfTheStandard(message: String, digest: String) {
        #expect(Hex.encode(Crypto.sha256(Array(message.utf8))) == digest)
    }

    // RFC 4231 §4.2 to §4.8 (§4.6 truncates, which we never do).
    @Test(arguments: [
        (
            String(repeating: "0b", count: 20), "4869205468657265",
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
        ),
        (
            "4a656665", "7768617420646f2079612077616e7420666f72206e6f7468696e673f",
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        ),
        (
            String(repeating: "aa", count: 20), String(repeating: "dd", count: 50),
            "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"
        ),
        (
            "0102030405060708090a0b0c0d0e0f10111213141516171819",
            String(repeating: "cd", count: 50),
            "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"
        ),
        (
            String(repeating: "aa", count: 131),
            "54657374205573696e67204c6172676572205468616e20426c6f636b2d53697a65204b6579202d204861"
                + "7368204b6579204669727374",
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        ),
        (
            String(repeating: "aa", count: 131),
            "5468697320697320612074657374207573696e672061206c6172676572207468616e20626c6f636b2d73"
                + "697a65206b657920616e642061206c6172676572207468616e20626c6f636b2d73697a65206461"
                + "74612e20546865206b6579206e6565647320746f20626520686173686564206265666f72652062"
                + "65696e6720757365642062792074686520484d414320616c676f726974686d2e",
            "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2"
        ),
    ])
    func hmacOfRFC4231(key: String, message: String, code: String) throws {
        let key = try #require(Hex.decode(key))
        let message = try #require(Hex.decode(message))
        #expect(Hex.encode(Crypto.hmacSHA256(key: key, message)) == code)
    }

    @Test func comparisonSeesEveryByteAndTheLength() {
        let bytes = Array(UInt8(0)..<32)
        #expect(Crypto.constantTimeEquals(bytes, bytes))
        #expect(Crypto.constantTimeEquals([], []))
        #expect(!Crypto.constantTimeEquals(bytes, Array(bytes.dropLast())))
        for index in bytes.indices {
            var other = bytes
            other[index] ^= 1
            #expect(!Crypto.constantTimeEquals(bytes, other))
        }
    }

    @Test func randomBytesDiffer() {
        #expect(Crypto.randomBytes(0) == [])
        #expect(Crypto.randomBytes(32) != Crypto.randomBytes(32))
        let time = UnixTime(milliseconds: 1_764_000_000_000)
        let identifier = Identifier.random(at: time)
        #expect(identifier != Identifier.random(at: time))
        #expect(identifier.high >> 16 == 1_764_000_000_000)
    }
}

@Suite struct SealedTests {
    private let key = Array(repeating: UInt8(7), count: 32)
    private let payload = Array("budgets travel with the request".utf8)

    @Test func opensWhatItSealed() {
        let text = Sealed.seal(payload, key: key)
        #expect(Sealed.open(text, key: key) == payload)
        #expect(Sealed.unverifiedPayload(text) == payload)
        #expect(Sealed.open(Sealed.seal([], key: key), key: key) == [])
    }

    @Test func anotherKeyDoesNotOpen() {
        let text = Sealed.seal(payload, key: key)
        #expect(Sealed.open(text, key: key.dropLast() + [8]) == nil)
        #expect(Sealed.open(text, key: []) == nil)
    }

    @Test func everyChangedCharacterIsRefused() {
        let text = Array(Sealed.seal(payload, key: key).utf8)
        for index in text.indices {
            for replacement in [UInt8(ascii: "A"), UInt8(ascii: "_"), UInt8(ascii: "."), 0x20] {
                var changed = text
                guard changed[index] != replacement else { continue }
                changed[index] = replacement
                let opened = Sealed.open(String(decoding: changed, as: UTF8.self), key: key)
                #expect(opened == nil, "character \(index) changed to \(replacement)")
            }
        }
    }

    @Test(arguments: [
        "", ".", "..", "YQ", "YQ.", ".YQ", "YQ.YQ", "YQ==.YQ", "YQ.YQ.YQ", "é.é", "YQ\u{301}.YQ",
    ])
    func othersAreRefused(text: String) {
        #expect(Sealed.open(text, key: key) == nil)
    }

    @Test func everyTruncationIsRefused() {
        let text = Sealed.seal(payload, key: key)
        for count in 0..<text.count { #expect(Sealed.open(text.prefix(count), key: key) == nil) }
        #expect(Sealed.open(text + "A", key: key) == nil)
    }
}
