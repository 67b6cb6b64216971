import WeirCore
import WeirLedger

/// What is written down and survives a crash: committed entries, in order.
struct SimulatedLog {
    private(set) var entries: [LedgerEntry] = []

    mutating func commit(_ entry: LedgerEntry) { entries.append(entry) }
    mutating func commit(_ more: [LedgerEntry]) { entries += more }

    /// As a new segment of the journal begins.
    mutating func compact(_ snapshot: [LedgerEntry]) { entries = snapshot }
}

/// A gateway: reserves, delegates, takes finals, reports.
struct SimulatedGateway {
    var book = LeaseBook()
    var log = SimulatedLog()
    var incarnation: Incarnation?
    var isDown = false
    var pausedUntil: UInt64 = 0
    /// Children under way whose answer has not come; the process forgets them in a crash.
    var open: Set<Int64> = []
    var reserved: [Reservation] = []
    /// Drift of its CLOCK_BOOTTIME and its wall clock.
    var bootOffset: UInt64 = 0
    var wallOffset: Int64 = 0

    mutating func crash() {
        isDown = true
        open = []
        reserved = []
    }

    /// `false`: the log did not replay.
    mutating func replay() -> Bool {
        book = LeaseBook()
        for entry in log.entries where !book.replay(entry) { return false }
        book.replayed()
        isDown = false
        return true
    }

    func snapshot() -> [LedgerEntry] {
        [.numbers(reservations: book.nextReservationNumber, delegations: 1)] + book.snapshot()
    }
}

/// An agent's sidecar: accepts delegations, runs attempts, writes records, reports finals.
struct SimulatedAgent {
    struct Running {
        var number: Int64
        var key: ChildKey
        var amount: NanoUSD
        var endsAt: UInt64
        var gateway: Int
    }

    var book = DelegationBook()
    var log = SimulatedLog()
    var incarnation = Incarnation(0)
    var isDown = false
    var running: [Running] = []
    /// The archive's truth: what each delegation cost, by its record. Never lost, because a record
    /// leaves the log only when it is stored.
    var records: [ChildKey: NanoUSD] = [:]
    var wasRecordedTwice = false

    mutating func record(_ number: Int64, _ key: ChildKey, cost: NanoUSD) {
        log.commit(.delegationSettled(number: number, cost: cost.rawValue))
        if records.updateValue(cost, forKey: key) != nil { wasRecordedTwice = true }
        book.settle(number, cost: cost)
    }

    mutating func crash() {
        isDown = true
        running = []
    }

    /// Replays, and settles at the worst case what was open (rule 6).
    mutating func restart() -> Bool {
        book = DelegationBook()
        for entry in log.entries where !book.replay(entry) { return false }
        isDown = false
        for open in book.openDelegations {
            record(open.number, open.key, cost: NanoUSD(open.amount))
        }
        return true
    }
}
