import Glibc
import Synchronization
import WeirCore
import WeirCrypto
import WeirLedger
import WeirMeshProtocol

/// The ledger and the log of one process, behind one short mutex; every loop calls it (rule 15).
///
/// Order of things, always: room in the log, then the change in memory, then the entry, and only
/// then does anybody act on the answer. Endings are never refused: what was admitted has room set
/// aside, and when the disk is full all the same, an ending waits in memory. Until it is written
/// nothing later is, no counter, final or acknowledgement that rests on it is said, and a crash
/// finds the attempt open: settled at its worst case.
package final class SidecarLedger: Sendable {
    package struct Configuration: Sendable {
        package var directory: String
        /// Standalone: what is kept. In a mesh: above it, admission stops.
        package var bytesKept = JournalLimits.bytesKept
        /// Nobody stores the records elsewhere: the oldest segments go.
        package var isStandalone = false

        package init(directory: String) { self.directory = directory }
    }

    /// What ends something open. Its effect in memory comes with its entry, also when that waits.
    enum Ending {
        case child(ChildKey, consumed: NanoUSD)
        case use(Reservation, consumed: NanoUSD)
        case attempt(Reservation, AttemptRecord, RecordNames)
        case delegation(Int64, AttemptRecord, RecordNames)
    }

    struct Waiter {
        var accounts: [UInt32]
        var wake: @Sendable () -> Void
    }

    struct State {
        var book: LeaseBook
        var delegations: DelegationBook
        let journal: Journal
        let header: JournalHeader
        var nextSequence: UInt64
        /// A life has begun or goes on: admission is possible.
        var isAlive = false
        var deferred: [Ending] = []
        /// Something in memory is in no entry: only a snapshot may come next.
        var needsRoll = false
        var stored: [Incarnation: UInt64] = [:]
        var waiters: [UInt64: Waiter] = [:]
        var nextWaiter: UInt64 = 1
        var onDemand: (@Sendable () -> Void)?
        var isDemandSaid = false
        var bytesKept: Int64
        let isStandalone: Bool
    }

    /// What the log said when it was opened, for the uplink's decisions.
    package struct Found: Sendable {
        /// The last incarnation of this log.
        package let predecessor: Incarnation?
        /// Issued at its join; key of the proof of succession.
        package let secret: [UInt8]
        /// Everything is there and lies where it was written (rule 8): the predecessor's leases may
        /// be released if it is adopted, and its life may go on while no control plane answers.
        package let isWhole: Bool
        /// Why a log that was there is not whole.
        package let flaw: String?
        package let crashedAttempts: Int
    }

    package let found: Found
    let directory: String
    // SAFETY: everything in it, classes and pointers included, is reached only under this lock.
    let state: Mutex<State>
    let recordReader: Mutex<RecordReader>

    /// Opens or creates the log, takes its lock, replays it, and writes the records of attempts
    /// that a crash cut off. Blocks for some milliseconds, or longer with a large log.
    package init(
        _ configuration: Configuration, wall: UnixTime = SidecarLedger.wallTime()
    ) throws(JournalError) {
        directory = configuration.directory
        recordReader = Mutex(RecordReader(directory: directory))
        let header = try JournalHeader(
            directory: configuration.directory, newIdentity: Identifier.random(at: wall))
        let bootID = Self.bootID()
        var recovery = Recovery(
            directory: configuration.directory, identity: header.identity, bootID: bootID)
        let predecessor = recovery.book.incarnation
        if !recovery.isWhole {
            recovery.book.markBroken()
            // Records after the last synced one may have been shipped and lost here; their numbers
            // are not used again.
            recovery.nextSequence += 1 << 20
        }
        let journal = Journal(
            directory: configuration.directory, identity: header.identity, bootID: bootID,
            found: recovery.segments, nextIndex: recovery.nextIndex)
        var state = State(
            book: recovery.book, delegations: recovery.delegations, journal: journal,
            header: header, nextSequence: recovery.nextSequence,
            bytesKept: configuration.bytesKept, isStandalone: configuration.isStandalone)
        guard journal.roll(snapshot: state.snapshot(), sequence: state.nextSequence) else {
            throw journal.failure
                ?? .system(operation: "prepare", path: configuration.directory, code: ETIMEDOUT)
        }
        let crashed = state.settleCrashed(wall: wall)
        found = Found(
            predecessor: predecessor, secret: header.secret,
            isWhole: recovery.isWhole && recovery.book.isWhole && predecessor != nil,
            flaw: recovery.flaw
                ?? (recovery.book.isWhole ? nil : "an earlier life found it broken"),
            crashedAttempts: crashed)
        self.state = Mutex(state)
    }

    // MARK: Lives

    /// After a join. `isAdopted`: the store made this incarnation the successor of `found`'s.
    package func begin(
        _ incarnation: Incarnation, secret: [UInt8], isAdopted: Bool
    ) throws(JournalError) {
        let error: JournalError? = state.withLock { state in
            do throws(JournalError) {
                try state.header.begin(incarnation, secret: secret)
            } catch { return error }
            let life = state.book.begin(incarnation, mayRelease: isAdopted && found.isWhole)
            state.nextSequence = 1
            guard state.commit([life]) else {
                return state.journal.failure
                    ?? .system(operation: "begin", path: directory, code: ENOSPC)
            }
            state.isAlive = true
            return nil
        }
        if let error { throw error }
    }

    /// Goes on as the predecessor, while no control plane can be asked. `false`: it may not.
    package func resume() -> Bool {
        guard found.isWhole else { return false }
        state.withLock { $0.isAlive = true }
        return true
    }

    /// Standalone: one incarnation for ever, 0, for nobody hands out numbers.
    package func beginStandalone() throws(JournalError) {
        if found.predecessor == Incarnation(0) {
            state.withLock { $0.isAlive = true }
        } else {
            try begin(Incarnation(0), secret: [], isAdopted: false)
        }
    }

    package var incarnation: Incarnation? { state.withLock { $0.book.incarnation } }

    /// Nanoseconds on CLOCK_BOOTTIME: it goes on while the machine sleeps.
    package static func bootTime() -> UInt64 {
        var now = timespec()
        clock_gettime(CLOCK_BOOTTIME, &now)
        return UInt64(now.tv_sec) &* 1_000_000_000 &+ UInt64(now.tv_nsec)
    }

    package static func wallTime() -> UnixTime {
        var now = timespec()
        clock_gettime(CLOCK_REALTIME, &now)
        return UnixTime(milliseconds: Int64(now.tv_sec) * 1_000 + Int64(now.tv_nsec) / 1_000_000)
    }

    private static func bootID() -> String {
        let bytes = readFile("/proc/sys/kernel/random/boot_id", limit: 64) ?? []
        return String(decoding: bytes.prefix(SegmentHeader.bootIDBytes), as: UTF8.self)
    }
}

extension SidecarLedger.State {
    func snapshot() -> [LedgerEntry] {
        let numbers = LedgerEntry.numbers(
            reservations: book.nextReservationNumber, delegations: delegations.nextNumber)
        return [numbers] + book.snapshot() + delegations.snapshot()
    }

    /// Whether one more thing may be opened: its entry has room now, and its ending later.
    mutating func mayOpen(entryBytes: Int = 64) -> Bool {
        guard isAlive, deferred.isEmpty || settleDebts() else { return false }
        let open = book.openCount + delegations.openCount + 1
        guard journal.bytesReady >= open * JournalLimits.settlementBytes + 4_096,
            isStandalone || journal.byteCount <= bytesKept
        else { return false }
        return makeRoom(entryBytes)
    }

    /// Called before a change in memory, because a new segment begins with a snapshot of the state
    /// as it is.
    mutating func makeRoom(_ bytes: Int) -> Bool {
        if !needsRoll, journal.fits(bytes) { return true }
        return roll() && journal.fits(bytes)
    }

    mutating func roll() -> Bool {
        guard journal.roll(snapshot: snapshot(), sequence: nextSequence) else { return false }
        needsRoll = false
        if isStandalone { journal.prune(keepingBytes: bytesKept) }
        return true
    }

    /// Writes entries whose effect is in memory already: as they are, or, where they do not fit,
    /// as part of a new segment's snapshot. `false`: nothing was written, and nothing that rests
    /// on it may be said until `settleDebts` succeeds.
    mutating func commit(_ entries: [LedgerEntry]) -> Bool {
        guard !entries.isEmpty else { return !needsRoll }
        let bytes = entries.reduce(0) { $0 + ($1.head?.length ?? 0) }
        if !needsRoll, journal.fits(bytes) {
            for entry in entries { journal.append(entry) }
            return true
        }
        needsRoll = true
        return roll()
    }

    /// Writes what could not be written before. `false`: it still cannot.
    mutating func settleDebts() -> Bool {
        if needsRoll, !roll() { return false }
        while let first = deferred.first {
            guard write(first) else { return false }
            deferred.removeFirst()
        }
        return true
    }

    /// Writes an ending and takes its effect, or keeps it until that can be done: then `false`.
    mutating func end(_ ending: SidecarLedger.Ending) -> Bool {
        if deferred.isEmpty || settleDebts(), write(ending) { return true }
        deferred.append(ending)
        return false
    }

    /// The same for an attempt, which most endings are: without an `Ending` on the way.
    mutating func end(
        _ reservation: Reservation, _ record: AttemptRecord, _ names: RecordNames
    ) {
        guard deferred.isEmpty || settleDebts(), makeRoom(Journal.recordRoom) else {
            return deferred.append(.attempt(reservation, record, names))
        }
        write(reservation, record, names)
    }

    private mutating func write(
        _ reservation: Reservation, _ record: AttemptRecord, _ names: RecordNames
    ) {
        guard book.isOpenAttempt(reservation) else { return }
        var record = record
        append(&record, names, number: reservation.number, endsDelegation: false)
        book.settle(reservation, cost: record.cost)
    }

    private mutating func write(_ ending: SidecarLedger.Ending) -> Bool {
        guard makeRoom(Journal.recordRoom) else { return false }
        switch ending {
        case .child(let key, let consumed):
            guard book.isOpenChild(key) else { return true }
            journal.append(.childFinal(number: key.child, consumed: max(0, consumed.rawValue)))
            book.childFinal(key, consumed: consumed)
        case .use(let reservation, let consumed):
            guard book.isOpenUse(reservation) else { return true }
            journal.append(
                .useEnded(number: reservation.number, consumed: max(0, consumed.rawValue)))
            book.endUse(reservation, consumed: consumed)
        case .attempt(let reservation, let record, let names):
            write(reservation, record, names)
        case .delegation(let number, var record, let names):
            guard delegations.find(number) != nil else { return true }
            append(&record, names, number: number, endsDelegation: true)
            delegations.settle(number, cost: record.cost)
        }
        return true
    }

    @inline(__always)
    private mutating func append(
        _ record: inout AttemptRecord, _ names: RecordNames, number: Int64, endsDelegation: Bool
    ) {
        record.sequence = nextSequence
        record.incarnation = book.incarnation ?? Incarnation(0)
        nextSequence += 1
        journal.appendRecord(
            &record, names: names, number: number, endsDelegation: endsDelegation)
    }

    /// Rule 6: attempts that were open when the process died settle at their worst case. The log
    /// has no names for them; the run and the agent are in the parent's trace.
    mutating func settleCrashed(wall: UnixTime) -> Int {
        var endings: [SidecarLedger.Ending] = []
        for open in book.openAttempts() {
            let record = Self.crashed(paidBy: open.key, amount: open.amount, wall: wall)
            endings.append(.attempt(open.reservation, record, RecordNames()))
        }
        for open in delegations.openDelegations {
            let record = Self.crashed(
                paidBy: open.key, amount: NanoUSD(open.amount), wall: wall)
            endings.append(.delegation(open.number, record, open.names))
        }
        for ending in endings { _ = end(ending) }
        _ = commit(book.endCrashedUses())
        return endings.count
    }

    private static func crashed(
        paidBy: ChildKey, amount: NanoUSD, wall: UnixTime
    ) -> AttemptRecord {
        var record = AttemptRecord()
        record.startedAt = wall
        record.paidBy = paidBy
        record.reserved = amount
        record.cost = amount
        record.reason = .crashed
        record.source = .ceiling
        record.flags = .crashed
        return record
    }
}
