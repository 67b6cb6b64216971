import CLinux
import Glibc
import Synchronization
import WeirCore
import WeirLedger
import WeirMeshProtocol

/// The write-ahead log of one process: a row of memory-mapped segments (`JournalLayout`). Each
/// opens with a snapshot, so that older ones are needed only for records that are not stored yet.
/// What is committed survives the process, because it is in the page cache; what the helper has
/// synced survives the machine.
///
/// Not thread-safe: whoever owns it calls it under one lock.
final class Journal {
    /// What is known of a segment that is on disk.
    struct Segment {
        let index: UInt64
        /// The last record of each incarnation in it.
        var lastSequences: [Incarnation: UInt64] = [:]
        /// The offset behind the last committed entry.
        var end: Int
        /// A snapshot begins here and is complete: what is older is not needed for replay.
        var isStart = false
    }

    let directory: String
    private let identity: Identifier
    private let bootID: String
    private let keeper: SegmentKeeper
    private(set) var segments: [Segment]
    private var base: UnsafeMutableRawPointer?
    private var offset = JournalLimits.segmentBytes
    private var snapshotBytes = 0
    private var writtenIncarnation = Incarnation(0)
    private var writtenSequence: UInt64 = 0
    /// Of the current one.
    private var segmentIndex: UInt64 = 0
    private var lastNames = LastNames()
    private var nameCount: UInt32 = 0
    /// Offset ÷ 8 of a name's entry in the current segment, by the name's checksum; 0 for none.
    private let nameTable: UnsafeMutableBufferPointer<UInt32>

    init(
        directory: String, identity: Identifier, bootID: String, found: [Segment], nextIndex: UInt64
    ) {
        self.directory = directory
        self.identity = identity
        self.bootID = bootID
        segments = found
        nameTable = .allocate(capacity: JournalLimits.namesMax * 2)
        nameTable.initialize(repeating: 0)
        keeper = SegmentKeeper(directory: directory, nextIndex: nextIndex)
    }

    deinit {
        keeper.stop()
        nameTable.deallocate()
    }

    var failure: JournalError? { keeper.failure }
    var byteCount: Int64 { Int64(segments.count) * Int64(JournalLimits.segmentBytes) }

    /// What could be written before the helper has to prepare more.
    var bytesReady: Int {
        let ready = keeper.readyCount.load(ordering: .relaxed)
        let usable = JournalLimits.segmentBytes - SegmentHeader.byteCount - snapshotBytes - 4_096
        return JournalLimits.segmentBytes - offset + ready * max(0, usable)
    }

    // MARK: Room

    /// Whether entries of `bytes` can be written into the current segment.
    func fits(_ bytes: Int) -> Bool { offset + bytes + 8 <= JournalLimits.segmentBytes }

    /// Begins a segment with a snapshot. Where the snapshot is larger than a segment it goes on in
    /// the next; until its end is committed, replay starts at the one before.
    func roll(snapshot: [LedgerEntry], sequence: UInt64) -> Bool {
        guard nextSegment(waitMilliseconds: base == nil ? 5_000 : 0) else { return false }
        let first = segments.count - 1
        let before = offset
        append(EntryHead(kind: .snapshotBegin, payload: 0)) { _ in }
        append(EntryHead(kind: .sequence, payload: 8)) { $0.integer(sequence) }
        for entry in snapshot {
            guard let head = entry.head else { continue }
            if offset + head.length + 64 > JournalLimits.segmentBytes {
                guard nextSegment(waitMilliseconds: JournalLimits.segmentWaitMilliseconds) else {
                    return false
                }
            }
            append(head) { entry.writePayload(&$0) }
        }
        append(EntryHead(kind: .snapshotEnd, payload: 0)) { _ in }
        snapshotBytes = max(0, offset - before)
        segments[first].isStart = true
        return true
    }

    private func nextSegment(waitMilliseconds: Int) -> Bool {
        guard let next = keeper.take(waitMilliseconds: waitMilliseconds) else { return false }
        noteSequence()
        if let last = segments.indices.last, base != nil { segments[last].end = offset }
        let header = SegmentHeader(
            index: next.index, journal: identity,
            place: .init(bootID: bootID, device: next.device, inode: next.inode))
        // The magic comes first in the bytes and is stored last.
        let bytes = header.bytes
        var writer = RawWriter(next.base + 4)
        writer.raw(Array(bytes.dropFirst(4)))
        weir_store_release_u32(next.base, SegmentHeader.magic)
        base = next.base
        segmentIndex = next.index
        offset = SegmentHeader.byteCount
        lastNames = LastNames()
        nameTable.update(repeating: 0)
        nameCount = 0
        segments.append(Segment(index: next.index, end: offset))
        return true
    }

    // MARK: Writing

    /// Room must have been made.
    @inline(__always)
    private func append(_ head: EntryHead, _ payload: (inout RawWriter) -> Void) {
        guard let base, offset + head.length <= JournalLimits.segmentBytes else {
            preconditionFailure("room is made before an entry is written")
        }
        let entry = base + offset
        entry.storeBytes(of: head.kind.rawValue, toByteOffset: 8, as: UInt8.self)
        entry.storeBytes(of: head.a, toByteOffset: 9, as: UInt8.self)
        entry.storeBytes(of: head.b.littleEndian, toByteOffset: 10, as: UInt16.self)
        entry.storeBytes(of: head.c.littleEndian, toByteOffset: 12, as: UInt32.self)
        var writer = RawWriter(entry + EntryLayout.headerBytes)
        payload(&writer)
        let length = head.length
        let sum = EntryLayout.checksum(entry, length: length, segment: segmentIndex)
        entry.storeBytes(of: sum.littleEndian, toByteOffset: 4, as: UInt32.self)
        weir_store_release_u32(entry, UInt32(length).littleEndian)
        offset += length
    }

    /// The one entry of each request that is no record.
    func append(_ opened: OpenedReservation) {
        append(opened.head(.opened)) { opened.write(&$0) }
    }

    func append(_ entry: LedgerEntry) {
        guard let head = entry.head else { preconditionFailure("a record is written as one") }
        append(head) { entry.writePayload(&$0) }
    }

    /// What `appendRecord` takes at most.
    static let recordRoom =
        EntryLayout.headerBytes + EntryLayout.recordNumberBytes + AttemptRecord.fullByteCount
        + 7 * (EntryLayout.headerBytes + EntryLayout.padded(JournalLimits.nameBytesMax))

    /// The record that ends an own attempt or a delegation, with its names interned on the way.
    func appendRecord(
        _ record: inout AttemptRecord, names: RecordNames, number: Int64, endsDelegation: Bool
    ) {
        record.subject = look(up: names.subject, &lastNames.subject)
        record.tier = look(up: names.tier, &lastNames.tier)
        record.tenant = look(up: names.tenant, &lastNames.tenant)
        record.agent = look(up: names.agent, &lastNames.agent)
        record.model = look(up: names.model, &lastNames.model)
        record.requestType = look(up: names.requestType, &lastNames.requestType)
        record.tags = look(up: names.tags, &lastNames.tags)
        let size =
            record.digests == nil ? AttemptRecord.shortByteCount : AttemptRecord.fullByteCount
        let head = EntryHead(
            kind: endsDelegation ? .delegationSettled : .settled,
            payload: EntryLayout.recordNumberBytes + size)
        append(head) { writer in
            writer.integer(number)
            record.write(to: writer.next)
        }
        if record.incarnation != writtenIncarnation { noteSequence() }
        writtenIncarnation = record.incarnation
        writtenSequence = record.sequence
    }

    /// The dictionary is brought up to date when a segment or an incarnation ends, not by record.
    private func noteSequence() {
        guard writtenSequence > 0, let last = segments.indices.last else { return }
        segments[last].lastSequences[writtenIncarnation] = writtenSequence
        writtenSequence = 0
    }

    /// A name and its number in this segment.
    private struct KnownName {
        var name = ""
        var number: UInt32 = 0
    }

    /// What the last record said: most say the same, and nothing is looked up.
    private struct LastNames {
        var subject = KnownName()
        var tier = KnownName()
        var tenant = KnownName()
        var agent = KnownName()
        var model = KnownName()
        var requestType = KnownName()
        var tags = KnownName()
    }

    /// The number that stands for a name in this segment, 0 for the empty one.
    private func look(up name: String, _ last: inout KnownName) -> UInt32 {
        if last.name == name { return last.number }
        last = KnownName(name: name, number: intern(name))
        return last.number
    }

    private func intern(_ name: String) -> UInt32 {
        guard !name.isEmpty else { return 0 }
        let result = name.utf8.withContiguousStorageIfAvailable { intern($0) }
        return result ?? Array(name.utf8).withUnsafeBufferPointer { intern($0) }
    }

    private func intern(_ whole: UnsafeBufferPointer<UInt8>) -> UInt32 {
        guard let base, let start = whole.baseAddress else { return 0 }
        var count = min(whole.count, JournalLimits.nameBytesMax)
        // A cut never falls inside a character.
        while count < whole.count, count > 0, whole[count] & 0xC0 == 0x80 { count -= 1 }
        let mask = nameTable.count - 1
        var slot = Int(weir_crc32c(0, start, count)) & mask
        while nameTable[slot] != 0 {
            let entry = base + Int(nameTable[slot]) * 8
            let length = entry.loadUnaligned(fromByteOffset: 10, as: UInt16.self).littleEndian
            if Int(length) == count, memcmp(entry + EntryLayout.headerBytes, start, count) == 0 {
                return entry.loadUnaligned(fromByteOffset: 12, as: UInt32.self).littleEndian
            }
            slot = (slot + 1) & mask
        }
        nameCount += 1
        if nameCount <= JournalLimits.namesMax { nameTable[slot] = UInt32(offset / 8) }
        let head = EntryHead(kind: .name, b: UInt16(count), c: nameCount, payload: count)
        append(head) { $0.next.copyMemory(from: start, byteCount: count) }
        return nameCount
    }

    // MARK: Keeping and deleting

    /// Where committed entries end: behind it nothing may be read.
    var end: (segment: UInt64, offset: Int)? { segments.last.map { ($0.index, offset) } }

    /// Deletes segments that neither replay nor anybody's records need: those before the newest
    /// complete snapshot whose records `isStored` says are kept elsewhere.
    func prune(isStored: (Incarnation, UInt64) -> Bool) {
        guard let start = segments.lastIndex(where: { $0.isStart }) else { return }
        var count = 0
        while count < start,
            segments[count].lastSequences.allSatisfy({ isStored($0.key, $0.value) })
        {
            count += 1
        }
        keeper.remove(segments.prefix(count).map(\.index))
        segments.removeFirst(count)
    }

    /// Standalone: the oldest go when the log is larger than what is kept.
    func prune(keepingBytes limit: Int64) {
        guard let start = segments.lastIndex(where: { $0.isStart }) else { return }
        let surplus = Int((byteCount - limit) / Int64(JournalLimits.segmentBytes))
        let count = max(0, min(start, surplus))
        keeper.remove(segments.prefix(count).map(\.index))
        segments.removeFirst(count)
    }
}
