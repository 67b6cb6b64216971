import Glibc
import WeirCore
import WeirLedger
import WeirMeshProtocol

@testable import SidecarCore

/// The bytes of a log's segment. The checksums are put right, because no fuzzer guesses them: what
/// is looked for is what an entry can say, not whether a broken one is noticed.
///
/// 1. Opening the log ends, whatever it says, and no record is read that is not in the bytes.
/// 2. The state that was replayed is one that a ledger can be in: taken as a snapshot and replayed,
///    it is the same.
enum JournalTarget {
    private static let identity = Identifier(high: 1, low: 2)
    private static let boot = Identifier(high: 3, low: 4)

    static func check(_ bytes: UnsafeRawBufferPointer) throws(PropertyFailure) {
        guard let segment = segment(bytes) else { return }
        let folder = JournalFolder()
        defer { folder.remove() }
        folder.write(segment, to: SegmentHeader.fileName(1))
        let path = folder.path + "/" + SegmentHeader.fileName(1)
        guard let reading = SegmentReading(path: path) else {
            throw PropertyFailure("a segment with a good header is none")
        }
        try checkRecords(reading, segment)
        let recovery = Recovery(
            directory: folder.path, identity: identity, bootID: "\(boot)")
        try checkState(recovery)
    }

    /// A header, and the input as entries: the length in words of eight bytes, the kind, the three
    /// small numbers (one byte each), then the payload.
    private static func segment(_ bytes: UnsafeRawBufferPointer) -> [UInt8]? {
        var segment = SegmentHeader(
            index: 1, journal: identity, place: .init(bootID: "\(boot)", device: 0, inode: 0)
        ).bytes
        segment += [UInt8](repeating: 0, count: SegmentHeader.byteCount - segment.count)
        var offset = 0
        while offset + 5 <= bytes.count {
            let payload = min(Int(bytes[offset]) * 8, bytes.count - offset - 5)
            var entry = ByteWriter()
            let length = EntryLayout.headerBytes + EntryLayout.padded(payload)
            entry.integer(UInt32(length))
            entry.integer(UInt32(0))
            entry.integer(bytes[offset + 1])
            entry.integer(bytes[offset + 2])
            entry.integer(UInt16(bytes[offset + 3]))
            entry.integer(UInt32(bytes[offset + 4]))
            entry.raw(bytes[(offset + 5)..<(offset + 5 + payload)])
            var finished = entry.bytes
            finished += [UInt8](repeating: 0, count: length - finished.count)
            let sum = finished.withUnsafeBytes { raw -> UInt32 in
                guard let base = raw.baseAddress else { return 0 }
                return EntryLayout.checksum(base, length: length, segment: 1)
            }
            withUnsafeBytes(of: sum.littleEndian) { finished.replaceSubrange(4..<8, with: $0) }
            segment += finished
            offset += 5 + payload
        }
        return segment.count <= JournalLimits.segmentBytes ? segment : nil
    }

    private static func checkRecords(
        _ reading: SegmentReading, _ segment: [UInt8]
    ) throws(PropertyFailure) {
        var offset = SegmentReading.start
        while case .entry(let entry, let end) = reading.next(at: offset) {
            try require(end > offset && end <= segment.count, "an entry that ends at \(end)")
            if case .record(let record, _, _) = entry {
                let start = offset + EntryLayout.headerBytes + EntryLayout.recordNumberBytes
                try require(
                    segment[start...].starts(with: record.bytes), "a record that is not there")
                try require(
                    record.cost >= .zero && record.reserved >= .zero, "a negative record")
            }
            offset = end
        }
    }

    private static func checkState(_ recovery: Recovery) throws(PropertyFailure) {
        let entries = recovery.book.snapshot()
        var again = LeaseBook()
        for entry in entries {
            if case .lease(let image) = entry {
                try require(
                    image.consumed >= 0 && image.released >= 0 && image.released <= image.granted,
                    "a lease of \(image)")
            }
            try require(again.replay(entry), "a state whose snapshot is refused at \(entry)")
        }
        again.replayed()
        try require(again.snapshot() == entries, "replayed it is another state")
    }
}

/// A folder for one input, in memory where the system has such a place.
private struct JournalFolder {
    let path: String

    init() {
        var template = Array("/dev/shm/weir-fuzz-XXXXXX".utf8CString)
        path = template.withUnsafeMutableBufferPointer { buffer in
            buffer.baseAddress.flatMap { mkdtemp($0) }.map { String(cString: $0) } ?? ""
        }
        precondition(!path.isEmpty, "no folder in /dev/shm")
    }

    func write(_ bytes: [UInt8], to name: String) {
        let descriptor = open(path + "/" + name, O_WRONLY | O_CREAT | O_CLOEXEC, 0o600)
        precondition(descriptor >= 0, "no file in \(path)")
        defer { close(descriptor) }
        precondition(Glibc.write(descriptor, bytes, bytes.count) == bytes.count, "a short write")
    }

    func remove() {
        unlink(path + "/" + SegmentHeader.fileName(1))
        rmdir(path)
    }
}
