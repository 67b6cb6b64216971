import Glibc
import WeirCore
import WeirLedger
import WeirMeshProtocol

/// The file `journal` of the log's folder: the lock, and what a life writes down once. Mode 0600,
/// for it holds the secret that proves succession.
final class JournalHeader {
    private static let magic: UInt32 = 0x484A_5257  // "WRJH"
    private static let byteCount = 256

    let path: String
    private let descriptor: Int32
    private(set) var identity: Identifier
    private(set) var incarnation: Incarnation?
    /// Issued at the join; proves to the next one that this is the same log.
    private(set) var secret: [UInt8] = []

    /// Takes the lock, or says that somebody has it.
    init(directory: String, newIdentity: Identifier) throws(JournalError) {
        path = directory + "/journal"
        if mkdir(directory, 0o700) != 0, errno != EEXIST {
            throw .system(operation: "mkdir", path: directory, code: errno)
        }
        descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw .system(operation: "open", path: path, code: errno) }
        identity = newIdentity
        // From here on `deinit` closes, also when this throws.
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            let code = errno
            throw code == EWOULDBLOCK
                ? .locked : .system(operation: "flock", path: path, code: code)
        }
        let bytes = readFile(path, limit: Self.byteCount) ?? []
        if bytes.isEmpty {
            try write()
        } else if !read(bytes) {
            throw .unreadableHeader
        }
    }

    deinit { close(descriptor) }

    func begin(_ incarnation: Incarnation, secret: [UInt8]) throws(JournalError) {
        self.incarnation = incarnation
        self.secret = Array(secret.prefix(64))
        try write()
    }

    private func write() throws(JournalError) {
        var writer = ByteWriter(capacity: Self.byteCount)
        writer.integer(Self.magic)
        writer.integer(identity.high)
        writer.integer(identity.low)
        writer.integer(incarnation?.rawValue ?? -1)
        writer.integer(UInt16(secret.count))
        writer.raw(secret)
        writer.raw(repeatElement(0, count: Self.byteCount - 4 - writer.bytes.count))
        writer.integer(Self.sum(writer.bytes))
        let written = pwrite(descriptor, writer.bytes, writer.bytes.count, 0)
        guard written == writer.bytes.count, fdatasync(descriptor) == 0 else {
            throw .system(operation: "pwrite", path: path, code: errno)
        }
    }

    private func read(_ bytes: [UInt8]) -> Bool {
        var reader = ByteReader(bytes)
        guard bytes.count == Self.byteCount, reader.integer(UInt32.self) == Self.magic,
            let high = reader.integer(UInt64.self), let low = reader.integer(UInt64.self),
            let life = reader.integer(Int64.self), let count = reader.integer(UInt16.self),
            count <= 64, let secret = reader.raw(Int(count))
        else { return false }
        var last = ByteReader(bytes[(Self.byteCount - 4)...])
        guard last.integer(UInt32.self) == Self.sum(Array(bytes.prefix(Self.byteCount - 4))) else {
            return false
        }
        identity = Identifier(high: high, low: low)
        incarnation = life < 0 ? nil : Incarnation(life)
        self.secret = Array(secret)
        return true
    }

    private static func sum(_ bytes: [UInt8]) -> UInt32 {
        bytes.reduce(0x811C_9DC5) { ($0 ^ UInt32($1)) &* 0x0100_0193 }
    }
}

/// What a log told when it was opened.
struct Recovery {
    var book = LeaseBook()
    var delegations = DelegationBook()
    /// Of the records, by the newest incarnation.
    var nextSequence: UInt64 = 1
    var segments: [Journal.Segment] = []
    var nextIndex: UInt64 = 1
    /// Why not everything that was committed was read, or that it lies elsewhere than where it was
    /// written: the first reason found.
    private(set) var flaw: String?
    var isWhole: Bool { flaw == nil }

    /// Reads the segments of a folder. The lock must be held.
    init(directory: String, identity: Identifier, bootID: String) {
        var isSnapshotOpen = false
        let indices = Self.indices(in: directory)
        for index in indices {
            let path = directory + "/" + SegmentHeader.fileName(index)
            guard let reading = SegmentReading(path: path), reading.header.index == index,
                reading.header.journal == identity
            else {
                // Prepared and never used: its number is free again, because a gap in the numbers
                // is a segment that got lost. Or else damaged: kept for people to look at.
                if Self.isUnused(path) {
                    unlink(path)
                } else {
                    note("segment \(index) is damaged")
                    nextIndex = index + 1
                }
                continue
            }
            nextIndex = index + 1
            if let last = segments.last, last.index + 1 != index {
                note("segment \(last.index + 1) is missing")
            }
            let scan = scan(reading, &isSnapshotOpen)
            segments.append(scan.segment)
            if !scan.isClean {
                note("segment \(index) has a bad entry at byte \(scan.segment.end)")
                // What comes after it is kept for people to look at, too.
                nextIndex = (indices.last ?? index) + 1
                break
            }
        }
        // A snapshot that was cut short is no start; the one before it is.
        if isSnapshotOpen, let open = segments.lastIndex(where: { $0.isStart }) {
            segments[open].isStart = false
        }
        replay(directory: directory, bootID: bootID)
    }

    private func scan(
        _ reading: SegmentReading, _ isSnapshotOpen: inout Bool
    ) -> (segment: Journal.Segment, isClean: Bool) {
        var segment = Journal.Segment(index: reading.header.index, end: SegmentReading.start)
        while true {
            switch reading.next(at: segment.end) {
            case .end: return (segment, true)
            case .bad: return (segment, false)
            case .entry(let entry, let end):
                switch entry {
                case .snapshotBegin:
                    segment.isStart = segment.end == SegmentReading.start
                    isSnapshotOpen = true
                case .snapshotEnd: isSnapshotOpen = false
                case .record(let record, _, _):
                    segment.lastSequences[record.incarnation] = record.sequence
                case .ledger, .name, .sequence: break
                }
                segment.end = end
            }
        }
    }

    /// From the newest complete snapshot on; later ones that were cut short are passed over, for
    /// they say what the state already is.
    private mutating func replay(directory: String, bootID: String) {
        guard let start = segments.lastIndex(where: { $0.isStart }) else {
            if !segments.isEmpty { note("no segment has a whole snapshot") }
            return
        }
        var snapshots = 0
        var isSkipping = false
        for segment in segments[start...] {
            let path = directory + "/" + SegmentHeader.fileName(segment.index)
            guard let reading = SegmentReading(path: path), isInPlace(reading.header, path, bootID)
            else {
                note("segment \(segment.index) cannot be read again")
                continue
            }
            var offset = SegmentReading.start
            while case .entry(let entry, let end) = reading.next(at: offset), end <= segment.end {
                offset = end
                switch entry {
                case .snapshotBegin:
                    snapshots += 1
                    isSkipping = snapshots > 1
                case .snapshotEnd: isSkipping = false
                default:
                    if !isSkipping, !take(entry) {
                        note("segment \(segment.index) contradicts itself before byte \(end)")
                        book.replayed()
                        return
                    }
                }
            }
        }
        book.replayed()
    }

    /// Also notes where the file lies that is read, though it is read whatever that says: a log of
    /// another boot still tells what was spent.
    private mutating func isInPlace(
        _ header: SegmentHeader, _ path: String, _ bootID: String
    ) -> Bool {
        var status = stat()
        guard stat(path, &status) == 0 else { return false }
        let circumstances = JournalCircumstances(
            written: header.place,
            found: .init(
                bootID: bootID, device: UInt64(status.st_dev), inode: UInt64(status.st_ino)),
            isLocked: true, isClean: true)
        if !circumstances.mayResume { note("it was written in another place or boot") }
        return true
    }

    private mutating func note(_ reason: String) { flaw = flaw ?? reason }

    private mutating func take(_ entry: JournalEntry) -> Bool {
        switch entry {
        case .snapshotBegin, .snapshotEnd, .name: return true
        case .sequence(let next):
            nextSequence = max(1, next)
            return true
        case .record(let record, let number, let endsDelegation):
            guard record.sequence < .max / 2 else { return false }
            nextSequence = record.sequence + 1
            let entry: LedgerEntry =
                endsDelegation
                ? .delegationSettled(number: number, cost: record.cost.rawValue)
                : .settled(number: number, cost: record.cost.rawValue)
            return book.replay(entry) && delegations.replay(entry)
        case .ledger(let entry):
            if case .life(let life, _) = entry, life != book.incarnation, book.incarnation != nil {
                nextSequence = 1
            }
            return book.replay(entry) && delegations.replay(entry)
        }
    }

    private static func isUnused(_ path: String) -> Bool {
        guard let bytes = readFile(path, limit: JournalLimits.segmentBytes) else { return false }
        return bytes.prefix(4).allSatisfy { $0 == 0 }
    }

    private static func indices(in directory: String) -> [UInt64] {
        guard let stream = opendir(directory) else { return [] }
        defer { closedir(stream) }
        var indices: [UInt64] = []
        while let entry = readdir(stream) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if let index = SegmentHeader.index(fileName: name), index < .max / 2 {
                indices.append(index)
            }
        }
        return indices.sorted()
    }
}
