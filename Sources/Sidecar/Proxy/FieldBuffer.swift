import Glibc

/// Fields that are added to a message, as the lines that will be written. Its memory is allocated
/// when the first field comes and kept with its exchange, which is used again: in the steady state
/// adding a field allocates nothing.
package struct FieldBuffer {
    private var memory: UnsafeMutableRawPointer?
    private var bytes = 0
    package private(set) var fieldCount = 0

    package init() {}

    package var isEmpty: Bool { bytes == 0 }
    package var count: Int { bytes }

    /// The field lines, each with its line end. Valid until the next change.
    package var lines: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: memory, count: bytes)
    }

    /// False, and nothing is added, when the value has bytes that no field may have, or when the
    /// limits are reached. The name is ours and in lower case.
    @discardableResult
    package mutating func add(_ name: StaticString, _ value: UnsafeRawBufferPointer) -> Bool {
        // Written in the source, so there is nothing to check.
        append(UnsafeRawBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount), value)
    }

    @discardableResult
    package mutating func add(_ name: StaticString, _ value: StaticString) -> Bool {
        add(name, UnsafeRawBufferPointer(start: value.utf8Start, count: value.utf8CodeUnitCount))
    }

    /// For cold paths: a String that is not native UTF-8 would be copied. Disfavoured, or literals
    /// would become Strings.
    @discardableResult
    @_disfavoredOverload
    package mutating func add(_ name: String, _ value: String) -> Bool {
        var name = name
        var value = value
        return name.withUTF8 { name in
            value.withUTF8 { add(UnsafeRawBufferPointer(name), UnsafeRawBufferPointer($0)) }
        }
    }

    @discardableResult
    package mutating func add(_ name: StaticString, decimal value: UInt64) -> Bool {
        withUnsafeTemporaryAllocation(byteCount: 20, alignment: 1) { room in
            var writer = HeadWriter(room)
            writer.write(decimal: value)
            return add(name, UnsafeRawBufferPointer(rebasing: room[..<writer.count]))
        }
    }

    @discardableResult
    package mutating func add(
        _ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer
    ) -> Bool {
        ASCII.isToken(name) && append(name, value)
    }

    private mutating func append(
        _ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer
    ) -> Bool {
        guard ASCII.isFieldValue(value), fieldCount < Limits.addedFieldsMax,
            bytes + name.count + value.count + 4 <= Limits.addedFieldBytesMax
        else { return false }
        let base = memory ?? .allocate(byteCount: Limits.addedFieldBytesMax, alignment: 16)
        memory = base
        var writer = HeadWriter(
            UnsafeMutableRawBufferPointer(
                start: base + bytes, count: Limits.addedFieldBytesMax - bytes))
        writer.write(name)
        writer.write(": ")
        writer.write(value)
        writer.write("\r\n")
        bytes += writer.count
        fieldCount += 1
        return true
    }

    /// False, and nothing is added, when the limits are reached.
    @discardableResult
    package mutating func add(_ prepared: PreparedFields) -> Bool {
        let count = prepared.bytes.count
        guard fieldCount + prepared.fieldCount <= Limits.addedFieldsMax,
            bytes + count <= Limits.addedFieldBytesMax
        else { return false }
        let base = memory ?? .allocate(byteCount: Limits.addedFieldBytesMax, alignment: 16)
        memory = base
        prepared.bytes.withUnsafeBytes { lines in
            if let start = lines.baseAddress { memcpy(base + bytes, start, count) }
        }
        bytes += count
        fieldCount += prepared.fieldCount
        return true
    }

    package mutating func removeAll() {
        bytes = 0
        fieldCount = 0
    }

    mutating func deallocate() {
        memory?.deallocate()
        memory = nil
        removeAll()
    }
}

/// Field lines that many messages carry, checked and written once.
package struct PreparedFields: Sendable {
    fileprivate let bytes: ContiguousArray<UInt8>
    fileprivate let fieldCount: Int

    /// Fields with values that no field may have are left out.
    package init(_ fields: [(name: StaticString, value: String)]) {
        var buffer = FieldBuffer()
        defer { buffer.deallocate() }
        for field in fields {
            var value = field.value
            value.withUTF8 { _ = buffer.add(field.name, UnsafeRawBufferPointer($0)) }
        }
        bytes = ContiguousArray(buffer.lines)
        fieldCount = buffer.fieldCount
    }
}
