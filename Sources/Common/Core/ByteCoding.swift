// Fixed little-endian layouts: what the journal keeps and the mesh carries as it is. Inlinable,
// because generic calls between modules cost more than what they do here.

package struct ByteWriter: Sendable {
    @usableFromInline package private(set) var bytes: [UInt8] = []

    package init(capacity: Int = 0) { bytes.reserveCapacity(capacity) }

    package mutating func integer(_ value: some FixedWidthInteger) {
        withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
    }

    package mutating func raw(_ value: some Sequence<UInt8>) { bytes.append(contentsOf: value) }

    /// At most 65,535 bytes of UTF-8 behind their length; traps on more, because names have limits
    /// long before.
    package mutating func string(_ value: String) {
        integer(UInt16(value.utf8.count))
        raw(value.utf8)
    }
}

/// Reads what `ByteWriter` writes. Bytes come from peers and disks: a short or wrong text is an
/// answer of `nil`, never a trap.
package struct ByteReader: Sendable {
    @usableFromInline var rest: ArraySlice<UInt8>

    @inlinable package init(_ bytes: some Collection<UInt8>) { rest = ArraySlice(bytes) }

    @inlinable package var isAtEnd: Bool { rest.isEmpty }
    @inlinable package var remaining: Int { rest.count }

    @inlinable
    package mutating func integer<T: FixedWidthInteger>(_ type: T.Type) -> T? {
        let size = MemoryLayout<T>.size
        guard let slice = raw(size) else { return nil }
        return slice.withUnsafeBytes { T(littleEndian: $0.loadUnaligned(as: T.self)) }
    }

    @inlinable package mutating func raw(_ count: Int) -> ArraySlice<UInt8>? {
        guard count >= 0, rest.count >= count else { return nil }
        defer { rest = rest.dropFirst(count) }
        return rest.prefix(count)
    }

    @inlinable package mutating func string() -> String? {
        guard let count = integer(UInt16.self), let slice = raw(Int(count)) else { return nil }
        return String(validating: slice, as: UTF8.self)
    }
}
