import CLinux
import Glibc
import WeirCore
import WeirLedger
import WeirMeshProtocol

/// One entry as it was read back.
enum JournalEntry {
    case ledger(LedgerEntry)
    case record(AttemptRecord, number: Int64, endsDelegation: Bool)
    case name(UInt32, String)
    case sequence(UInt64)
    case snapshotBegin, snapshotEnd
}

/// The bytes of one segment file, and the entries in them. Files come from a disk that may be
/// anybody's: whatever is wrong ends the reading and is never a trap.
struct SegmentReading {
    let header: SegmentHeader
    /// Of the file, from `first` on.
    private let bytes: [UInt8]
    private let first: Int

    /// `nil`: no header, so nothing was ever committed in it.
    init?(path: String) {
        guard let bytes = readFile(path, limit: JournalLimits.segmentBytes),
            bytes.count >= SegmentHeader.byteCount,
            let header = SegmentHeader(bytes: bytes[0..<SegmentHeader.byteCount])
        else { return nil }
        self.header = header
        self.bytes = bytes
        first = 0
    }

    /// A part of it alone, from the beginning of an entry to the end of one.
    init?(path: String, from start: Int, until end: Int) {
        guard let head = readFile(path, limit: SegmentHeader.byteCount),
            let header = SegmentHeader(bytes: head[...]), start <= end,
            end <= JournalLimits.segmentBytes,
            let bytes = readFile(path, from: start, limit: end - start)
        else { return nil }
        self.header = header
        self.bytes = bytes
        first = start
    }

    enum Next {
        case entry(JournalEntry, end: Int)
        case end
        case bad
    }

    static let start = SegmentHeader.byteCount

    func next(at position: Int) -> Next {
        let offset = position - first
        guard offset >= 0, offset + EntryLayout.headerBytes <= bytes.count else { return .end }
        var reader = ByteReader(bytes[offset..<(offset + EntryLayout.headerBytes)])
        guard let length32 = reader.integer(UInt32.self), let sum = reader.integer(UInt32.self),
            let kind = reader.integer(UInt8.self), let a = reader.integer(UInt8.self),
            let b = reader.integer(UInt16.self), let c = reader.integer(UInt32.self)
        else { return .bad }
        guard length32 != 0 else { return .end }
        let length = Int(length32)
        guard length >= EntryLayout.headerBytes, length <= EntryLayout.entryBytesMax,
            length % 8 == 0, offset + length <= bytes.count
        else { return .bad }
        let isWhole = bytes.withUnsafeBytes { raw in
            guard let base = raw.baseAddress else { return false }
            return EntryLayout.checksum(base + offset, length: length, segment: header.index) == sum
        }
        guard isWhole, let kind = EntryKind(rawValue: kind) else { return .bad }
        var payload = ByteReader(
            bytes[(offset + EntryLayout.headerBytes)..<(offset + length)])
        guard let entry = Self.decode(kind, a: a, b: b, c: c, &payload) else { return .bad }
        return .entry(entry, end: position + length)
    }

    private static func decode(
        _ kind: EntryKind, a: UInt8, b: UInt16, c: UInt32, _ reader: inout ByteReader
    ) -> JournalEntry? {
        switch kind {
        case .snapshotBegin: return .snapshotBegin
        case .snapshotEnd: return .snapshotEnd
        case .sequence: return reader.integer(UInt64.self).map { .sequence($0) }
        case .name: return reader.text(b).map { .name(c, $0) }
        case .settled, .delegationSettled:
            return decodeRecord(&reader, endsDelegation: kind == .delegationSettled)
        case .lease, .account, .leaseForgotten, .released, .leaseNumbers:
            return decodeLease(kind, a: a, b: b, c: c, &reader).map { .ledger($0) }
        case .opened, .spent:
            return decodeOpened(kind, a: a, b: b, &reader).map { .ledger($0) }
        case .numbers, .life, .childFinal, .useEnded:
            return decodePair(kind, &reader).map { .ledger($0) }
        case .accepted, .refused, .window, .forgottenIssuers, .final:
            return decodeDelegation(kind, a: a, &reader).map { .ledger($0) }
        }
    }

    private static func decodeRecord(
        _ reader: inout ByteReader, endsDelegation: Bool
    ) -> JournalEntry? {
        guard let number = reader.integer(Int64.self) else { return nil }
        let size =
            reader.remaining >= AttemptRecord.fullByteCount
            ? AttemptRecord.fullByteCount : AttemptRecord.shortByteCount
        guard let raw = reader.raw(size), let record = AttemptRecord(bytes: raw) else { return nil }
        return .record(record, number: number, endsDelegation: endsDelegation)
    }

    private static func decodeLease(
        _ kind: EntryKind, a: UInt8, b: UInt16, c: UInt32, _ reader: inout ByteReader
    ) -> LedgerEntry? {
        switch kind {
        case .leaseForgotten: return .leaseForgotten(slot: c)
        case .released: return reader.integer(Int64.self).map { .released(slot: c, total: $0) }
        case .leaseNumbers: return reader.integer(Int64.self).map { .leaseNumbers(below: $0) }
        case .account:
            guard let consumed = reader.integer(Int64.self), let text = reader.text(b),
                let key = AccountKey(text)
            else { return nil }
            return .account(key, ownConsumed: consumed)
        default:
            guard let id = reader.lease(), let granted = reader.integer(Int64.self),
                let consumed = reader.integer(Int64.self),
                let released = reader.integer(Int64.self), let text = reader.text(b),
                let key = AccountKey(text)
            else { return nil }
            return .lease(
                LeaseImage(
                    slot: c, id: id, account: key, granted: granted, consumed: consumed,
                    released: released, isLocal: a == 1))
        }
    }

    private static func decodeOpened(
        _ kind: EntryKind, a: UInt8, b: UInt16, _ reader: inout ByteReader
    ) -> LedgerEntry? {
        guard let number = reader.integer(Int64.self), let amount = reader.integer(Int64.self),
            let least = reader.integer(Int64.self),
            let opened = OpenedReservation.Kind(rawValue: a),
            let (count, legs) = decodeLegs(b, &reader)
        else { return nil }
        guard let audience = reader.integer(Int64.self) else { return nil }
        let reservation = OpenedReservation(
            number: number, kind: opened, amount: amount, least: least, legCount: count,
            legs: legs, audience: Incarnation(audience))
        return kind == .spent ? .spent(reservation) : .opened(reservation)
    }

    private static func decodeLegs(
        _ form: UInt16, _ reader: inout ByteReader
    ) -> (count: Int, legs: SIMD8<UInt32>)? {
        let areShort = form & OpenedReservation.shortLegs != 0
        let count = Int(form & ~OpenedReservation.shortLegs)
        guard count <= (areShort ? LedgerLimits.accountsPerReservationMax : 4) else { return nil }
        var legs = SIMD8<UInt32>(repeating: 0)
        for index in 0..<(areShort ? 8 : 4) {
            let leg =
                areShort
                ? reader.integer(UInt16.self).map { UInt32($0) }
                : reader.integer(UInt32.self)
            guard let leg else { return nil }
            legs[index] = leg
        }
        return (count, legs)
    }

    private static func decodePair(
        _ kind: EntryKind, _ reader: inout ByteReader
    ) -> LedgerEntry? {
        guard let first = reader.integer(Int64.self), let second = reader.integer(Int64.self) else {
            return nil
        }
        switch kind {
        case .life: return .life(Incarnation(first), wholeSince: Incarnation(second))
        case .numbers: return .numbers(reservations: first, delegations: second)
        case .useEnded: return .useEnded(number: first, consumed: second)
        default: return .childFinal(number: first, consumed: second)
        }
    }

    private static func decodeDelegation(
        _ kind: EntryKind, a: UInt8, _ reader: inout ByteReader
    ) -> LedgerEntry? {
        guard let first = reader.integer(Int64.self) else { return nil }
        if kind == .forgottenIssuers { return .forgottenIssuers(through: Incarnation(first)) }
        guard let second = reader.integer(Int64.self) else { return nil }
        if kind == .window {
            var bits = ContiguousArray<UInt64>()
            while let word = reader.integer(UInt64.self) { bits.append(word) }
            return IssuerWindow(issuer: Incarnation(first), highest: second, bits: bits)
                .map { .window($0) }
        }
        if kind == .refused {
            let lease = LeaseID(incarnation: Incarnation(first), number: second)
            return reader.integer(Int64.self).map { .refused(ChildKey(lease: lease, child: $0)) }
        }
        if kind == .final {
            guard let child = reader.integer(Int64.self), let consumed = reader.integer(Int64.self)
            else { return nil }
            let lease = LeaseID(incarnation: Incarnation(first), number: second)
            return .final(
                ChildFinal(
                    key: ChildKey(lease: lease, child: child), consumed: NanoUSD(consumed)))
        }
        guard let lease = reader.lease(), let child = reader.integer(Int64.self),
            let amount = reader.integer(Int64.self),
            let names = RecordNames(reading: &reader, hasTags: a == 1)
        else { return nil }
        return .accepted(
            AcceptedDelegation(
                number: first, issuer: Incarnation(second),
                key: ChildKey(lease: lease, child: child), amount: amount, names: names))
    }
}

extension ByteReader {
    fileprivate mutating func lease() -> LeaseID? {
        guard let incarnation = integer(Int64.self), let number = integer(Int64.self) else {
            return nil
        }
        return LeaseID(incarnation: Incarnation(incarnation), number: number)
    }

    fileprivate mutating func text(_ count: UInt16) -> String? {
        raw(Int(count)).flatMap { String(validating: $0, as: UTF8.self) }
    }
}

/// A file from `start` on, at most `limit` bytes of it.
func readFile(_ path: String, from start: Int = 0, limit: Int) -> [UInt8]? {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return nil }
    defer { close(descriptor) }
    var status = stat()
    guard fstat(descriptor, &status) == 0 else { return nil }
    // What the kernel makes up (/proc) has no size.
    let limit = status.st_size > 0 ? min(limit, max(0, Int(status.st_size) - start)) : limit
    var bytes = [UInt8](repeating: 0, count: limit)
    var count = 0
    while count < limit {
        let read = bytes.withUnsafeMutableBytes {
            pread(
                descriptor, $0.baseAddress.map { $0 + count }, limit - count, off_t(start + count))
        }
        guard read >= 0 else { return nil }
        if read == 0 { break }
        count += read
    }
    bytes.removeLast(limit - count)
    return bytes
}
