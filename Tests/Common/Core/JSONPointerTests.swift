import Testing
import WeirCore

@Suite struct JSONPointerTests {
    /// The examples of RFC 6901 §5.
    @Test(
        arguments: [
            ("/foo", #"["bar","baz"]"#), ("/foo/0", #""bar""#), ("/", "0"), ("/a~1b", "1"),
            ("/c%d", "2"), ("/e^f", "3"), ("/g|h", "4"), (#"/i\j"#, "5"), (#"/k"l"#, "6"),
            ("/ ", "7"),
            ("/m~0n", "8"), ("/m~01n", nil), ("/foo/2", nil), ("/foo/-", nil), ("/foo/00", nil),
            ("/foo/+1", nil), ("/foo/0/x", nil), ("/foo/-1", nil),
            ("/foo/99999999999999999999", nil),
        ] as [(String, String?)])
    func evaluates(text: String, expected: String?) throws {
        let document = try JSON.parse(
            #"""
            {"foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "e^f": 3, "g|h": 4, "i\\j": 5,
             "k\"l": 6, " ": 7, "m~n": 8}
            """#)
        let pointer = try #require(JSONPointer(text))
        #expect(pointer.evaluate(document)?.text == expected)
        #expect(pointer.description == text)
    }

    @Test func theEmptyPointerIsTheWhole() throws {
        #expect(try #require(JSONPointer("")).evaluate(["a": 1]) == ["a": 1])
    }

    @Test(arguments: ["a", "a/b", "/~", "/~2", "/a~", "#/a"])
    func refuses(text: String) {
        #expect(JSONPointer(text) == nil)
    }
}

@Suite struct TextFormsTests {
    /// RFC 4648 §10, without padding.
    @Test(arguments: [
        ("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foob", "Zm9vYg"),
        ("fooba", "Zm9vYmE"), ("foobar", "Zm9vYmFy"),
    ])
    func base64URL(plain: String, encoded: String) {
        #expect(Base64URL.encode(plain.utf8) == encoded)
        #expect(Base64URL.decode(encoded) == Array(plain.utf8))
    }

    @Test func base64URLHasItsOwnAlphabet() {
        #expect(Base64URL.encode([0xFB, 0xFF]) == "-_8")
        #expect(Base64URL.decode("-_8") == [0xFB, 0xFF])
    }

    @Test(arguments: ["A", "AAAAA", "Zg==", "Zh", "Zm9", "+/8", "Zg ", "Z\ng", "Zgä"])
    func base64URLIsStrict(text: String) {
        #expect(Base64URL.decode(text) == nil)
    }

    @Test func hexadecimal() {
        #expect(Hex.encode([0, 0x7F, 0xFF]) == "007fff")
        #expect(Hex.decode("007fff") == [0, 0x7F, 0xFF])
        for text in ["0", "0G", "FF", "0x", " 0"] { #expect(Hex.decode(text) == nil) }
    }

    @Test func identifiersSurviveTheirTextAndSortByTime() throws {
        let early = Identifier(time: UnixTime(milliseconds: 1_000), random: (.max, .max))
        let late = Identifier(time: UnixTime(milliseconds: 1_001), random: (0, 0))
        for identifier in [early, late, Identifier(high: .max, low: .max)] {
            let text = identifier.description
            #expect(text.utf8.count == 26)
            #expect(Identifier(text) == identifier)
        }
        #expect(early.description < late.description)
    }

    @Test(arguments: [
        "", "01ARZ3NDEKTSV4RRFFQ69G5FA", "01ARZ3NDEKTSV4RRFFQ69G5FAVX",
        "81ARZ3NDEKTSV4RRFFQ69G5FAV",
        "01arz3ndektsv4rrffq69g5fav", "01ARZ3NDEKTSV4RRFFQ69G5FAU", "01ARZ3NDEKTSV4RRFFQ69G5FA ",
    ])
    func refusesOtherIdentifiers(text: String) {
        #expect(Identifier(text) == nil)
    }

    @Test func reasonsHaveOneNameAndOneNumber() {
        #expect(Set(Reason.allCases.map(\.name)).count == Reason.allCases.count)
        for reason in Reason.allCases {
            #expect(Reason(name: reason.name) == reason)
            #expect(Reason(rawValue: reason.rawValue) == reason)
            #expect((200...599).contains(reason.status))
            #expect(!reason.title.isEmpty)
        }
        #expect(Reason(name: "other") == nil)
    }
}

@Suite struct ByteCodingTests {
    @Test func whatIsWrittenIsRead() {
        var writer = ByteWriter()
        writer.integer(UInt8(7))
        writer.integer(Int64.min)
        writer.string("grün")
        writer.raw([1, 2, 3])
        var reader = ByteReader(writer.bytes)
        let (byte, number) = (reader.integer(UInt8.self), reader.integer(Int64.self))
        let (text, raw) = (reader.string(), reader.raw(3))
        #expect(byte == 7)
        #expect(number == .min)
        #expect(text == "grün")
        #expect(raw.map(Array.init) == [1, 2, 3])
        #expect(reader.isAtEnd)
    }

    @Test func everyShorterTextIsRefused() {
        var writer = ByteWriter()
        writer.integer(UInt64(1))
        writer.string("abc")
        for count in 0..<writer.bytes.count {
            var reader = ByteReader(writer.bytes.prefix(count))
            let complete = reader.integer(UInt64.self) != nil && reader.string() != nil
            #expect(!complete)
        }
    }

    @Test func lengthsAndTextsFromPeersDoNotTrap() {
        for bytes: [UInt8] in [[0xFF, 0xFF, 1], [1, 0, 0xFF], [1]] {
            var reader = ByteReader(bytes)
            let text = reader.string()
            #expect(text == nil)
        }
        for count in [-1, .max, .min] {
            var reader = ByteReader([1] as [UInt8])
            let raw = reader.raw(count)
            #expect(raw == nil)
        }
    }
}
