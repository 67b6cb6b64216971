import CLinux
import WeirCore
import WeirLedger

// The bytes of the log: little-endian, entries of a multiple of eight.
//
//     0  u32  length of the entry, 0 where the log ends; stored last, with release order
//     4  u32  CRC-32C of everything behind it, begun from the segment's index and the length, so
//             that an entry of a recycled file is none
//     8  u8   kind · u8 a · u16 b · u32 c: small fields, by kind
//    16  …    payload

enum EntryKind: UInt8 {
    case snapshotBegin = 1
    case snapshotEnd, leaseNumbers, numbers, lease, leaseForgotten, released, account, opened
    case spent, childFinal, settled, delegationSettled, accepted, window, forgottenIssuers, final
    case name, life, sequence, refused, useEnded
}

enum EntryLayout {
    static let headerBytes = 16
    static let recordNumberBytes = 8
    static let entryBytesMax = 8_192 + 64

    static func padded(_ count: Int) -> Int { (count + 7) & ~7 }

    static func checksum(_ entry: UnsafeRawPointer, length: Int, segment: UInt64) -> UInt32 {
        let seed = UInt32(truncatingIfNeeded: segment) ^ (UInt32(length) &* 0x9E37_79B1)
        return weir_crc32c(seed, entry + 8, length - 8)
    }
}

/// Writes fixed fields one after the other into memory whose size the caller has checked.
struct RawWriter {
    private(set) var next: UnsafeMutableRawPointer

    init(_ start: UnsafeMutableRawPointer) { next = start }

    @inline(__always)
    mutating func integer<T: FixedWidthInteger>(_ value: T) {
        next.storeBytes(of: value.littleEndian, as: T.self)
        next += MemoryLayout<T>.size
    }

    mutating func digest(_ digest: Digest) {
        let words = digest.words
        integer(words.0)
        integer(words.1)
        integer(words.2)
        integer(words.3)
    }

    mutating func raw(_ bytes: [UInt8]) {
        bytes.withUnsafeBytes { source in
            if let base = source.baseAddress {
                next.copyMemory(from: base, byteCount: source.count)
            }
        }
        next += bytes.count
    }

    mutating func zeros(_ count: Int) {
        next.initializeMemory(as: UInt8.self, repeating: 0, count: count)
        next += count
    }
}

/// An entry as it is before its payload: sizes first, so that room is made before anything is
/// written.
struct EntryHead {
    var kind: EntryKind
    var a: UInt8 = 0
    var b: UInt16 = 0
    var c: UInt32 = 0
    var payload: Int

    var length: Int { EntryLayout.headerBytes + EntryLayout.padded(payload) }
}

extension LedgerEntry {
    /// `nil` for the entries that are records: the record's own bytes stand for them.
    var head: EntryHead? {
        switch self {
        case .life: EntryHead(kind: .life, payload: 16)
        case .leaseNumbers: EntryHead(kind: .leaseNumbers, payload: 8)
        case .numbers: EntryHead(kind: .numbers, payload: 16)
        case .lease(let image):
            EntryHead(
                kind: .lease, a: image.isLocal ? 1 : 0, b: image.account.journalLength,
                c: image.slot, payload: 40 + Int(image.account.journalLength))
        case .leaseForgotten(let slot): EntryHead(kind: .leaseForgotten, c: slot, payload: 0)
        case .released(let slot, _): EntryHead(kind: .released, c: slot, payload: 8)
        case .account(let key, _):
            EntryHead(
                kind: .account, b: key.journalLength, payload: 8 + Int(key.journalLength))
        case .opened(let opened): opened.head(.opened)
        case .spent(let opened): opened.head(.spent)
        case .childFinal: EntryHead(kind: .childFinal, payload: 16)
        case .useEnded: EntryHead(kind: .useEnded, payload: 16)
        case .accepted(let accepted):
            accepted.names.acceptedHead
        case .window(let window):
            EntryHead(kind: .window, payload: 16 + window.bits.count * 8)
        case .forgottenIssuers: EntryHead(kind: .forgottenIssuers, payload: 8)
        case .refused: EntryHead(kind: .refused, payload: 24)
        case .final: EntryHead(kind: .final, payload: 32)
        case .settled, .delegationSettled: nil
        }
    }

    func writePayload(_ writer: inout RawWriter) {
        switch self {
        case .life(let life, let since):
            writer.integer(life.rawValue)
            writer.integer(since.rawValue)
        case .leaseNumbers(let below): writer.integer(below)
        case .numbers(let reservations, let delegations):
            writer.integer(reservations)
            writer.integer(delegations)
        case .lease(let image):
            writer.lease(image.id)
            writer.integer(image.granted)
            writer.integer(image.consumed)
            writer.integer(image.released)
            writer.raw(Array(image.account.description.utf8))
        case .leaseForgotten: break
        case .released(_, let total): writer.integer(total)
        case .account(let key, let consumed):
            writer.integer(consumed)
            writer.raw(Array(key.description.utf8))
        case .opened(let opened), .spent(let opened): opened.write(&writer)
        case .childFinal(let number, let consumed), .useEnded(let number, let consumed):
            writer.integer(number)
            writer.integer(consumed)
        case .accepted(let accepted): accepted.write(&writer)
        case .window(let window):
            writer.integer(window.issuer.rawValue)
            writer.integer(window.highest)
            for word in window.bits { writer.integer(word) }
        case .forgottenIssuers(let through): writer.integer(through.rawValue)
        case .refused(let key):
            writer.lease(key.lease)
            writer.integer(key.child)
        case .final(let final):
            writer.lease(final.key.lease)
            writer.integer(final.key.child)
            writer.integer(final.consumed.rawValue)
        case .settled, .delegationSettled:
            preconditionFailure("a record stands for it")
        }
    }
}

extension RawWriter {
    mutating func lease(_ id: LeaseID) {
        integer(id.incarnation.rawValue)
        integer(id.number)
    }
}

extension AccountKey {
    /// Ids of accounts are bounded long before; a longer one would not be found again at replay, so
    /// it is a mistake of the program.
    var journalLength: UInt16 {
        let count = description.utf8.count
        precondition(count <= 1_024, "an account's name is bounded where it is made")
        return UInt16(count)
    }
}

extension OpenedReservation {
    func head(_ entry: EntryKind) -> EntryHead {
        EntryHead(kind: entry, a: kind.rawValue, b: form, payload: 48)
    }

    /// Legs are numbers of 32 bits, as they were before there could be more than four, and of 16
    /// bits where there are: a reservation takes as much room in either form.
    static let shortLegs: UInt16 = 0x100

    private var form: UInt16 { UInt16(legCount) | (legCount > 4 ? Self.shortLegs : 0) }

    func write(_ writer: inout RawWriter) {
        writer.integer(number)
        writer.integer(amount)
        writer.integer(least)
        if legCount > 4 {
            // Fewer leases than that are held at once (`LedgerLimits.leasesMax`).
            for index in 0..<8 { writer.integer(UInt16(truncatingIfNeeded: legs[index])) }
        } else {
            for index in 0..<4 { writer.integer(legs[index]) }
        }
        writer.integer(audience.rawValue)
    }
}

extension AcceptedDelegation {
    /// Without the names.
    static let fixedBytes = 48

    func write(_ writer: inout RawWriter) {
        writer.integer(number)
        writer.integer(issuer.rawValue)
        writer.lease(key.lease)
        writer.integer(key.child)
        writer.integer(amount)
        writer.name(names.subject)
        writer.name(names.tier)
        writer.name(names.tenant)
        writer.name(names.agent)
        writer.name(names.requestType)
        if !names.tags.isEmpty { writer.name(names.tags) }
    }
}

extension RawWriter {
    /// Cut at the limit of a record's names, so that the record of a crash says what others say. On
    /// the path of each delegated request, so without an array.
    fileprivate mutating func name(_ name: String) {
        let bytes = name.utf8.prefix(JournalLimits.nameBytesMax)
        integer(UInt16(bytes.count))
        for byte in bytes { integer(byte) }
    }
}

extension RecordNames {
    fileprivate var journalBytes: Int {
        func bytes(_ name: String) -> Int { 2 + min(name.utf8.count, JournalLimits.nameBytesMax) }
        return bytes(subject) + bytes(tier) + bytes(tenant) + bytes(agent) + bytes(requestType)
            + (tags.isEmpty ? 0 : bytes(tags))
    }

    /// Tags follow where there are any, and `a` says so.
    fileprivate var acceptedHead: EntryHead {
        EntryHead(
            kind: .accepted, a: tags.isEmpty ? 0 : 1,
            payload: AcceptedDelegation.fixedBytes + journalBytes)
    }

    /// The whole entry of a delegation that is accepted under these names.
    var acceptedEntryBytes: Int { acceptedHead.length }

    init?(reading reader: inout ByteReader, hasTags: Bool) {
        var names: [String] = []
        for _ in 0..<(hasTags ? 6 : 5) {
            guard let count = reader.integer(UInt16.self), let bytes = reader.raw(Int(count)) else {
                return nil
            }
            names.append(String(decoding: bytes, as: UTF8.self))
        }
        self.init(
            subject: names[0], tier: names[1], tenant: names[2], agent: names[3],
            requestType: names[4], tags: hasTags ? names[5] : "")
    }
}
