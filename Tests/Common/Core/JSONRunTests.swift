import Testing
import WeirCore

@Suite struct JSONRunTests {
    private func isPlain(_ byte: UInt8, _ stopsAtDelete: Bool) -> Bool {
        byte >= 0x20 && byte != UInt8(ascii: "\"") && byte != UInt8(ascii: "\\")
            && !(stopsAtDelete && byte == 0x7F)
    }

    /// Every byte at every place of a text that is longer than two words, among neighbours from
    /// which a borrow could come.
    @Test(arguments: [true, false])
    func endsAtTheFirstByteThatDoesNotStandForItself(stopsAtDelete: Bool) {
        for filler in [UInt8(ascii: "a"), 0x20, 0x21, 0x23, 0x5B, 0x5D, 0x7E, 0x80, 0xFF] {
            for count in 0...19 {
                let whole = [UInt8](repeating: filler, count: count)
                let found = whole.withUnsafeBytes {
                    JSONRun.count($0, stopsAtDelete: stopsAtDelete)
                }
                #expect(found == count)
                for place in 0..<count {
                    for byte in UInt8.min...UInt8.max {
                        var text = whole
                        text[place] = byte
                        let end = text.withUnsafeBytes {
                            JSONRun.count($0, stopsAtDelete: stopsAtDelete)
                        }
                        let expected = isPlain(byte, stopsAtDelete) ? count : place
                        guard end != expected else { continue }
                        Issue.record("\(byte) at \(place) of \(count) × \(filler): \(end)")
                    }
                }
            }
        }
    }
}
