import CNghttp2
import Testing

@testable import SidecarCore

@Suite struct HTTP2NameValuesTests {
    private func pairs(_ list: HTTP2NameValues) -> [String] {
        (0..<list.count).map { index in
            let pair = list.pairs[index]
            let name = String(
                decoding: UnsafeBufferPointer(start: pair.name, count: pair.namelen), as: UTF8.self)
            let value = String(
                decoding: UnsafeBufferPointer(start: pair.value, count: pair.valuelen),
                as: UTF8.self)
            return "\(name)=\(value)" + (pair.flags & 1 != 0 ? "!" : "")
        }
    }

    @Test func `fields of a head, lines and written values`() {
        let fixture = HeadFixture(
            "HTTP/1.1 200 OK\r\nServer: x\r\nDrop: y\r\nSet-Cookie: a=b\r\nEmpty:\r\n\r\n",
            isRequest: false)
        var lines = FieldBuffer()
        defer { lines.deallocate() }
        lines.add("weir-decision", "admitted")
        lines.add("retry-after", decimal: 5)
        let list = HTTP2NameValues()
        list.add(":status") { $0.write(decimal: 200) }
        list.add(fieldsOf: fixture.head) { fixture.head.text($0.name) != "Drop" }
        list.add(lines: lines.lines)
        list.add("via", "1.1 weir")
        #expect(
            pairs(list) == [
                ":status=200", "Server=x", "Set-Cookie=a=b!", "Empty=", "weir-decision=admitted!",
                "retry-after=5!", "via=1.1 weir",
            ])
        list.reset()
        #expect(list.count == 0)
    }

    @Test func `too many fields and too much text are told, not sent`() {
        let list = HTTP2NameValues()
        for _ in 0..<HTTP2NameValues.pairsMax { list.add("a", "b") }
        #expect(!list.overflowed)
        list.add("a", "b")
        #expect(list.overflowed && list.count == HTTP2NameValues.pairsMax)
        list.reset()
        #expect(!list.overflowed)
        list.add("long") { writer in
            for _ in 0..<100_000 { writer.write("x") }
        }
        #expect(list.overflowed && list.count == 0)
    }
}
