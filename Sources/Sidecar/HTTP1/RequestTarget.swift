import CLinux

/// The forms of a request target (RFC 9112 §3.2).
enum RequestTarget {
    static func parse(
        _ bytes: UnsafeRawBufferPointer, _ start: Int, _ end: Int, _ head: inout HTTPHead
    ) -> HeadError? {
        if head.method == .connect {
            head.target = ByteRange(start, end)
            return isAuthority(UnsafeRawBufferPointer(rebasing: bytes[start..<end]))
                ? nil : .malformed
        }
        if bytes[start] == UInt8(ascii: "/") {
            head.target = ByteRange(start, end)
            return nil
        }
        if bytes[start] == UInt8(ascii: "*") {
            head.target = ByteRange(start, end)
            return end - start == 1 && head.method == .options ? nil : .malformed
        }
        return absolute(bytes, start, end, &head)
    }

    /// `http://authority/path`: taken apart, and forwarded in origin form with the authority as
    /// `Host`, as §3.2.2 demands of a server.
    private static func absolute(
        _ bytes: UnsafeRawBufferPointer, _ start: Int, _ end: Int, _ head: inout HTTPHead
    ) -> HeadError? {
        let target = UnsafeRawBufferPointer(rebasing: bytes[start..<end])
        let schemeCount: Int
        if hasPrefix(target, "http://") {
            schemeCount = 7
        } else if hasPrefix(target, "https://") {
            schemeCount = 8
        } else {
            return .malformed
        }
        var position = start + schemeCount
        while position < end, bytes[position] != UInt8(ascii: "/"),
            bytes[position] != UInt8(ascii: "?")
        {
            position += 1
        }
        // `http://host?query` has an empty path; nobody sends it, and servers differ about it.
        guard position == end || bytes[position] == UInt8(ascii: "/") else { return .malformed }
        head.host = ByteRange(start + schemeCount, position)
        guard isAuthority(head.bytesUnchecked(head.host)) else { return .malformed }
        head.target = ByteRange(position, end)
        return nil
    }

    private static func hasPrefix(_ bytes: UnsafeRawBufferPointer, _ prefix: StaticString) -> Bool {
        let count = prefix.utf8CodeUnitCount
        guard bytes.count > count else { return false }
        for index in 0..<count
        where ASCII.lowered(bytes[index]) != prefix.utf8Start[index] { return false }
        return true
    }

    /// `uri-host [ ":" port ]` (RFC 3986 §3.2.2), without user information.
    static func isAuthority(_ bytes: UnsafeRawBufferPointer) -> Bool {
        guard let first = bytes.first, bytes.count <= 261 else { return false }
        var position = 0
        if first == UInt8(ascii: "[") {
            guard let close = bytes.firstIndex(of: UInt8(ascii: "]")), close > 2 else {
                return false
            }
            for index in 1..<close where ASCII.hexDigit(bytes[index]) == nil {
                guard bytes[index] == 0x3A || bytes[index] == 0x2E else { return false }
            }
            position = close + 1
        } else {
            position = weir_host_count(
                bytes.baseAddress?.assumingMemoryBound(to: UInt8.self), bytes.count)
            guard position > 0 else { return false }
        }
        if position == bytes.count { return true }
        guard bytes[position] == UInt8(ascii: ":"), bytes.count - position <= 6 else {
            return false
        }
        for index in (position + 1)..<bytes.count where !(48...57).contains(bytes[index]) {
            return false
        }
        return true
    }
}

extension HTTPHead {
    /// While the head is still being parsed and its length not known.
    func bytesUnchecked(_ range: ByteRange) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: base + range.start, count: Int(range.count))
    }
}
