import Glibc

/// Where the output of one connection gathers during a turn, shared by all connections of a worker:
/// it is empty between turns. When another connection wants it, it is flushed first.
final class WriteScratch {
    /// From here on, copying costs more than a second vector in the system call.
    static let copiesBelow = 16 * 1024

    private let memory: UnsafeMutableRawBufferPointer
    private var count = 0
    private var holder: Connection?

    init() { memory = .allocate(byteCount: Limits.writeScratchBytes, alignment: 64) }
    deinit { memory.deallocate() }

    func reserve(_ bytes: Int, for connection: Connection) -> UnsafeMutableRawBufferPointer? {
        claim(connection)
        if count + bytes > memory.count { flush() }
        guard bytes <= memory.count else { return nil }
        // The flush may have found the socket full: then what follows must queue behind.
        if connection.isCongested { return connection.reserve(bytes) }
        holder = connection
        return UnsafeMutableRawBufferPointer(rebasing: memory[count..<(count + bytes)])
    }

    func commit(_ bytes: Int) { count += bytes }

    func append(_ bytes: UnsafeRawBufferPointer, for connection: Connection) {
        claim(connection)
        if count + bytes.count > memory.count {
            flush()
            if connection.isCongested { return connection.emit(bytes) }
            holder = connection
        }
        guard let base = memory.baseAddress, let source = bytes.baseAddress else { return }
        memcpy(base + count, source, bytes.count)
        count += bytes.count
    }

    /// Sends what has gathered and `bytes` behind it.
    func flush(for connection: Connection, with bytes: UnsafeRawBufferPointer) {
        claim(connection)
        let gathered = count
        count = 0
        holder = nil
        connection.transmit(
            UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(memory)[..<gathered]), bytes)
    }

    func flush() {
        guard let connection = holder else { return }
        let gathered = count
        count = 0
        holder = nil
        guard gathered > 0 else { return }
        connection.transmit(
            UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(memory)[..<gathered]),
            UnsafeRawBufferPointer(start: nil, count: 0))
    }

    func forget(_ connection: Connection) {
        guard holder === connection else { return }
        holder = nil
        count = 0
    }

    private func claim(_ connection: Connection) {
        guard holder !== connection else { return }
        flush()
        holder = connection
    }
}
