import WeirCore
import WeirLedger

/// What is written down and survives a crash: committed entries, in order. Where it lies says
/// whether it may be trusted (rule 8); a copy lies elsewhere.
struct SimulatedLog {
    private(set) var entries: [LedgerEntry] = []
    /// What a power loss leaves.
    private(set) var syncedCount = 0
    private(set) var place = JournalCircumstances.Place(bootID: "1", device: 1, inode: 1)
    private var writtenAt = JournalCircumstances.Place(bootID: "1", device: 1, inode: 1)

    mutating func commit(_ entry: LedgerEntry) { entries.append(entry) }
    mutating func sync() { syncedCount = entries.count }

    /// As a new segment of the journal begins.
    mutating func compact(_ snapshot: [LedgerEntry]) {
        entries = snapshot
        syncedCount = entries.count
    }

    /// The machine starts again: another boot, and what was not synced is gone.
    mutating func losePower() {
        entries.removeLast(entries.count - syncedCount)
        place.bootID += "+"
    }

    /// A copy of what it was at some time, on another volume.
    func copy(entries count: Int) -> SimulatedLog {
        var copy = self
        copy.entries = Array(entries.prefix(count))
        copy.syncedCount = copy.entries.count
        copy.place.inode += 1
        return copy
    }

    func circumstances() -> JournalCircumstances {
        JournalCircumstances(written: writtenAt, found: place, isLocked: true, isClean: true)
    }

    /// From here on it is written where it lies.
    mutating func settle() { writtenAt = place }
}

/// A gateway's process and its volume: reserves, delegates, takes finals, reports.
struct SimulatedGateway {
    var book = LeaseBook() { didSet { isTouched = true } }
    /// The book may have changed since it was checked.
    var isTouched = false
    var log = SimulatedLog()
    var incarnation = Incarnation(0)
    /// Counts processes: an answer to an earlier one comes to a connection that is gone.
    var life = 0
    var isDown = false
    var pausedUntil: UInt64 = 0
    var policy = 1
    /// Its CLOCK_BOOTTIME and its wall clock against the world's.
    var bootOffset: UInt64 = 0
    var wallOffset: Int64 = 0
    var asked: LeasesRequest?
    var askedAt: UInt64 = 0
    var isAskScheduled = false
    var isReportScheduled = false
    var payers: [[Int]: Payer] = [:]

    struct Use {
        var account: Int
        var amount: Int64
    }

    var uses: [Reservation: Use] = [:]
    /// By account: what would be charged too much if the log lost all ends of uses.
    var usesUnused: [Int: Int64] = [:]

    mutating func crash() {
        isDown = true
        life += 1
        asked = nil
        isReportScheduled = false
        payers = [:]
        uses = [:]
    }

    /// `false`: the log did not replay.
    mutating func replay() -> Bool {
        book = LeaseBook()
        for entry in log.entries where !book.replay(entry) { return false }
        book.replayed()
        for entry in book.endCrashedUses() { log.commit(entry) }
        return true
    }

    func snapshot() -> [LedgerEntry] {
        [.numbers(reservations: book.nextReservationNumber, delegations: 1)] + book.snapshot()
    }
}

/// An agent's sidecar and its volume: accepts delegations, runs attempts, writes records, reports
/// finals.
struct SimulatedAgent {
    struct Running {
        var key: ChildKey
        var amount: Int64
        var cost: Int64
        var gateway: Int
    }

    var book = DelegationBook()
    var log = SimulatedLog()
    var incarnation = Incarnation(0)
    var life = 0
    var isDown = false
    /// Of lives before it the log may lack what was accepted: nothing is said of their children.
    var wholeSince = Incarnation(0)
    var running: [Int64: Running] = [:]

    mutating func crash() {
        isDown = true
        life += 1
    }

    mutating func replay() -> Bool {
        book = DelegationBook()
        for entry in log.entries where !book.replay(entry) { return false }
        return true
    }

    func snapshot() -> [LedgerEntry] {
        [.numbers(reservations: 1, delegations: book.nextNumber)] + book.snapshot()
    }
}
