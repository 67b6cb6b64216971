import CLinux
import Glibc
import WeirCore
import WeirLedger

package enum JournalError: Error, Hashable, Sendable {
    /// Another process has the log.
    case locked
    case system(operation: String, path: String, code: Int32)
    /// The header is none of this program's.
    case unreadableHeader
}

/// One file of the log, mapped for writing. Who holds it owns the mapping and the descriptor.
struct MappedSegment {
    let index: UInt64
    let path: String
    let descriptor: Int32
    let base: UnsafeMutableRawPointer
    let device: UInt64
    let inode: UInt64

    /// Allocates a file, writes it with zeros once and faults every page in. Slow: only the helper
    /// thread does it, and the first time the opening. A sparse file would die with SIGBUS on a
    /// full disk, and allocated but unwritten extents may wait for the file system at a fault.
    static func prepare(
        directory: String, index: UInt64
    ) throws(JournalError) -> MappedSegment {
        let path = directory + "/" + SegmentHeader.fileName(index)
        let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else {
            throw .system(operation: "open", path: path, code: errno)
        }
        do throws(JournalError) {
            return try fill(descriptor, path: path, index: index)
        } catch {
            close(descriptor)
            unlink(path)
            throw error
        }
    }

    private static func fill(
        _ descriptor: Int32, path: String, index: UInt64
    ) throws(JournalError) -> MappedSegment {
        let size = JournalLimits.segmentBytes
        let code = posix_fallocate(descriptor, 0, off_t(size))
        guard code == 0 else { throw .system(operation: "posix_fallocate", path: path, code: code) }
        let zeros = [UInt8](repeating: 0, count: 1 << 16)
        var offset = 0
        while offset < size {
            let written = pwrite(descriptor, zeros, zeros.count, off_t(offset))
            guard written > 0 else { throw .system(operation: "pwrite", path: path, code: errno) }
            offset += written
        }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else {
            throw .system(operation: "fstat", path: path, code: errno)
        }
        guard
            let base = mmap(nil, size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0),
            base != MAP_FAILED
        else { throw .system(operation: "mmap", path: path, code: errno) }
        for page in stride(from: 0, to: size, by: 4_096) {
            base.storeBytes(of: 0, toByteOffset: page, as: UInt8.self)
        }
        return MappedSegment(
            index: index, path: path, descriptor: descriptor, base: base,
            device: UInt64(status.st_dev), inode: UInt64(status.st_ino))
    }

    func unmap() { munmap(base, JournalLimits.segmentBytes) }
}

/// The first bytes of a segment: which log it belongs to, and where it was written.
struct SegmentHeader: Hashable {
    static let magic: UInt32 = 0x314A_5257  // "WRJ1"
    static let byteCount = 128
    static let bootIDBytes = 36

    var index: UInt64
    var journal: Identifier
    var place: JournalCircumstances.Place

    static func fileName(_ index: UInt64) -> String {
        let digits = String(index, radix: 16)
        return "segment-" + String(repeating: "0", count: 16 - digits.count) + digits
    }

    static func index(fileName: String) -> UInt64? {
        guard fileName.hasPrefix("segment-"), fileName.utf8.count == 24 else { return nil }
        return UInt64(fileName.dropFirst(8), radix: 16)
    }

    var bytes: [UInt8] {
        var writer = ByteWriter(capacity: Self.byteCount)
        writer.integer(Self.magic)
        writer.integer(UInt32(1))
        writer.integer(index)
        writer.integer(journal.high)
        writer.integer(journal.low)
        writer.integer(place.device)
        writer.integer(place.inode)
        writer.raw(Array(place.bootID.utf8.prefix(Self.bootIDBytes)))
        writer.raw(repeatElement(0, count: 48 + Self.bootIDBytes - writer.bytes.count))
        let sum = writer.bytes.withUnsafeBytes { weir_crc32c(0, $0.baseAddress, $0.count) }
        writer.integer(sum)
        return writer.bytes
    }

    /// `nil` for a file that was prepared and never used, and for one that is none of ours.
    init?(bytes: ArraySlice<UInt8>) {
        var reader = ByteReader(bytes)
        guard reader.integer(UInt32.self) == Self.magic, reader.integer(UInt32.self) == 1,
            let index = reader.integer(UInt64.self), let high = reader.integer(UInt64.self),
            let low = reader.integer(UInt64.self), let device = reader.integer(UInt64.self),
            let inode = reader.integer(UInt64.self), let boot = reader.raw(Self.bootIDBytes)
        else { return nil }
        let text = String(decoding: boot.prefix { $0 != 0 }, as: UTF8.self)
        self.init(
            index: index, journal: Identifier(high: high, low: low),
            place: JournalCircumstances.Place(bootID: text, device: device, inode: inode))
        guard bytes.starts(with: self.bytes) else { return nil }
    }

    init(index: UInt64, journal: Identifier, place: JournalCircumstances.Place) {
        self.index = index
        self.journal = journal
        self.place = place
    }
}
