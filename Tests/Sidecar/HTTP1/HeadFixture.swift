@testable import SidecarCore

/// A parsed head and the memory that it points into.
final class HeadFixture {
    private let memory: UnsafeMutableRawBufferPointer
    private let fields: UnsafeMutablePointer<HTTPField>
    let result: HeadResult
    let head: HTTPHead

    init(_ text: String, isRequest: Bool = true) {
        let bytes = Array(text.utf8)
        let base = UnsafeMutableRawPointer.allocate(
            byteCount: max(bytes.count, 1), alignment: 1)
        memory = UnsafeMutableRawBufferPointer(start: base, count: max(bytes.count, 1))
        memory.copyBytes(from: bytes)
        fields = .allocate(capacity: Limits.fieldsMax)
        var head = HTTPHead(base: UnsafeRawPointer(base), fields: fields)
        let input = UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(memory)[..<bytes.count])
        result =
            isRequest
            ? HeadParser.parseRequest(input, fields: fields, into: &head)
            : HeadParser.parseResponse(input, fields: fields, into: &head)
        self.head = head
    }

    deinit {
        memory.deallocate()
        fields.deallocate()
    }
}

extension [UInt8] {
    init(text: String) { self = Array(text.utf8) }
}
