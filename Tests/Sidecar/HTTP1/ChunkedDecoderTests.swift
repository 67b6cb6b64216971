import Testing

@testable import SidecarCore

@Suite struct ChunkedDecoderTests {
    private enum Outcome: Equatable {
        case complete(data: String, trailers: String, rest: Int)
        case incomplete
        case failed(ChunkedDecoder.Event)
    }

    /// Decodes `text` given in pieces of `step` bytes.
    private func decode(_ text: String, step: Int) -> Outcome {
        var decoder = ChunkedDecoder()
        var data: [UInt8] = []
        let bytes = Array(text.utf8)
        var position = 0
        while position < bytes.count {
            let piece = Array(bytes[position..<min(position + step, bytes.count)])
            var offset = 0
            let outcome = piece.withUnsafeBytes { raw -> Outcome? in
                while true {
                    switch decoder.next(raw, from: &offset) {
                    case .data(let start, let count): data += Array(raw[start..<(start + count)])
                    case .needsMore: return nil
                    case .end(let end):
                        return .complete(
                            data: String(decoding: data, as: UTF8.self),
                            trailers: String(decoding: decoder.trailers, as: UTF8.self),
                            rest: bytes.count - position - end)
                    case .malformed: return .failed(.malformed)
                    case .tooLarge: return .failed(.tooLarge)
                    }
                }
            }
            if let outcome { return outcome }
            position += step
        }
        return .incomplete
    }

    @Test(arguments: [1, 2, 3, 7, 1000])
    func bodiesInAnyPieces(step: Int) {
        #expect(
            decode("5\r\nhello\r\n0\r\n\r\nGET", step: step)
                == .complete(data: "hello", trailers: "", rest: 3))
        #expect(
            decode("A;x=y\r\n0123456789\r\n001\r\n!\r\n0;z\r\nA: b\r\nC: d\r\n\r\n", step: step)
                == .complete(data: "0123456789!", trailers: "A: b\r\nC: d\r\n\r\n", rest: 0))
    }

    @Test(arguments: [
        "g\r\n", "\r\n", "-1\r\n", "+1\r\n", "0x1\r\n", " 1\r\n", "1 \r\n", "1\n", "1\r\rA",
        "1\r\nAB\r\n", "1\r\nA\n", "1\r\nA\rX", "1234567890ABCDEF\r\n", "1;a\u{0}\r\n",
        "1;a\nb\r\n",
        "0\r\n\n", "0\r\n\rX", "0\r\nA: b\n\r\n",
        // RFC 9112 §7.1.1: an extension has a name, and space belongs to what follows it.
        "1;\r\nA\r\n", "1; \r\n", "1;a;\r\n", "1;a=\r\n", "1;=b\r\n", "1;a[=b\r\n", "1;a=b=c\r\n",
        "1;a b\r\n", "1;a=b \r\n", "1;a=b c\r\n", "1;a=b =c\r\n", "1;a=\"b\r\n", "1;a=\"b\"c\r\n",
        "1;a=\"b\\\"\r\n", "1\t\r\n", "1 a\r\n",
    ])
    func malformedFramingIsRefused(text: String) {
        for step in [1, 1000] { #expect(decode(text, step: step) == .failed(.malformed)) }
    }

    /// RFC 9112 §7.1.1: what is well-formed and unknown is passed over.
    @Test(arguments: [
        ";a", ";a=b", ";a=b;c", ";a;b=\"c;d\"", " ;a", "\t ; a = b ; c", ";a=\"\\\"\"", ";a=\"\"",
        ";a=\"\u{E4}\" ;b",
    ])
    func extensionsArePassedOver(text: String) {
        for step in [1, 1000] {
            #expect(
                decode("1\(text)\r\nA\r\n0\(text)\r\n\r\n", step: step)
                    == .complete(data: "A", trailers: "", rest: 0))
        }
    }

    @Test func extensionsAndTrailersAreBounded() {
        let one = "1;" + String(repeating: "x", count: 300) + "\r\nA\r\n"
        #expect(decode(one, step: 64) == .failed(.tooLarge))
        let many = String(
            repeating: "1;" + String(repeating: "x", count: 200) + "\r\nA\r\n", count: 30)
        #expect(decode(many, step: 64) == .failed(.tooLarge))
        let spaces = "1" + String(repeating: " ", count: 300) + ";a\r\nA\r\n"
        #expect(decode(spaces, step: 64) == .failed(.tooLarge))
        let trailers = "0\r\n" + String(repeating: "A: b\r\n", count: 2000)
        #expect(decode(trailers, step: 64) == .failed(.tooLarge))
    }
}
