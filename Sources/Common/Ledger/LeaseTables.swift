import WeirCore

// The rows of the holder's tables. Slots are reused; rows are changed in place.

let noSlot = UInt32.max

struct AccountSlot: Sendable {
    var key: AccountKey
    /// Told apart from earlier accounts in this slot; odd while in use.
    var generation: UInt32
    var limit: Int64
    var maxLease: Int64
    var policyNumber: Int64

    // What the store said last.
    var isStateKnown = false
    var stateLimit: Int64 = 0
    var stateConsumed: Int64 = 0
    var stateHeld: Int64 = 0
    var othersConsumed: Int64 = 0
    var resetsAtMilliseconds: Int64?

    /// Of this incarnation (and what it adopted), forgotten leases included.
    var ownConsumed: Int64 = 0
    var leastOutstanding: Int64 = 0
    var firstLease = noSlot
    var lastUsed: UInt64 = 0
    /// About what one request sets aside: the largest, slowly forgotten.
    var usualAmount: Int64 = 0
    /// Somebody else waits for what comes free; 0: nobody.
    var wantedUntil: UInt64 = 0
    var isGivingBack = false
    /// Of a minute's account, on CLOCK_BOOTTIME: from then on its minute is over for the store.
    var endsAt = UInt64.max

    // Demand that no acquire carries yet.
    var needMin: Int64 = 0
    var needSum: Int64 = 0
    var isQueued = false
    /// Some of it comes from users whose tier only observes.
    var demandObserves = false
    /// The account was granted money that observes: what its leases have free may be beyond the
    /// limit, so that those for whom the limit holds look at it first.
    var mayBeBeyond = false

    /// The acquire under way; number 0: none. At most one for each account.
    var pending = PendingAcquire()

    // What the store refused last, so that a refused user does not ask it again with each request.
    var deniedUntil: UInt64 = 0
    var denialDelay: UInt64 = 0
    /// It was refused although it asked for money that observes.
    var denialObserves = false

    // Spending, to tell how much to ask for ahead.
    var windowStart: UInt64 = 0
    var windowReserved: Int64 = 0
    var reservedPerWindow: Int64 = 0

    var waiters: UInt32 = 0

    /// Half of the limit, or more, is neither spent nor set aside, as far as the store has said.
    var isAmple: Bool { isStateKnown && stateConsumed + stateHeld <= stateLimit / 2 }
}

struct PendingAcquire: Sendable {
    var number: Int64 = 0
    var need: Int64 = 0
    var want: Int64 = 0
    var isUnderWay = false
    var observes = false
}

struct LeaseSlot: Sendable {
    var id: LeaseID
    /// `noSlot` for a free slot.
    var account: UInt32
    /// The account's next lease.
    var next: UInt32
    var granted: Int64
    var consumed: Int64
    var released: Int64
    /// Open reservations and open children, at their worst case.
    var outstanding: Int64 = 0
    var openCount: Int32 = 0
    /// On CLOCK_BOOTTIME; stops admission and nothing else.
    var admitsUntil: UInt64
    var isLocal: Bool
    /// Counters that the store is known to have.
    var acknowledgedConsumed: Int64 = 0
    var acknowledgedReleased: Int64 = 0

    static let free = LeaseSlot(
        id: LeaseID(incarnation: Incarnation(0), number: 0), account: noSlot, next: noSlot,
        granted: 0, consumed: 0, released: 0, admitsUntil: 0, isLocal: false)

    var free: Int64 {
        max(0, granted - consumed - released - (isPlanted(.outstandingIsFree) ? 0 : outstanding))
    }
    var isClosed: Bool { openCount == 0 && consumed + released >= granted }
    /// As counters that the store has: it has not heard of the lease in this epoch.
    static let unheard: Int64 = -1
    var isUnheard: Bool { acknowledgedConsumed == Self.unheard }
    var isAcknowledged: Bool {
        acknowledgedConsumed == consumed && acknowledgedReleased == released
    }
}

struct ReservationSlot: Sendable {
    enum Phase: UInt8, Sendable {
        case none
        /// In memory only: nothing went upstream.
        case reserved
        case attempt, child, use

        init(_ kind: OpenedReservation.Kind) {
            switch kind {
            case .attempt: self = .attempt
            case .child: self = .child
            case .use: self = .use
            }
        }

        /// What the log has of it; `nil` for what is in memory only.
        var kind: OpenedReservation.Kind? {
            switch self {
            case .none, .reserved: nil
            case .attempt: .attempt
            case .child: .child
            case .use: .use
            }
        }
    }

    /// 0 for a free slot.
    var number: Int64 = 0
    var amount: Int64 = 0
    var least: Int64 = 0
    var legs = SIMD8<UInt32>(repeating: noSlot)
    var legCount: Int32 = 0
    var phase = Phase.none
    /// Its call ended without a settlement, or the process that made it died: it is asked about.
    var isOverdue = false
    /// Of a child: whom to ask.
    var audience = Incarnation(0)
}

/// Open things by number: the slot is the number modulo the capacity, and a number whose slot is
/// taken by something older is skipped. So looking one up is one step, nothing is hashed, and the
/// table grows only when more are open at once than ever before.
struct ReservationTable: Sendable {
    private(set) var rows: ContiguousArray<ReservationSlot>
    private(set) var count = 0
    private(set) var nextNumber: Int64 = 1

    init() { rows = ContiguousArray(repeating: ReservationSlot(), count: 256) }

    var isFull: Bool { count >= LedgerLimits.reservationsMax / 2 }

    private func slot(of number: Int64) -> Int {
        Int(truncatingIfNeeded: number) & (rows.count - 1)
    }

    func find(_ number: Int64) -> Int? {
        let slot = slot(of: number)
        return number > 0 && rows[slot].number == number ? slot : nil
    }

    subscript(_ slot: Int) -> ReservationSlot {
        _read { yield rows[slot] }
        _modify { yield &rows[slot] }
    }

    /// A new number and the free slot that it leads to.
    mutating func insert() -> Int {
        precondition(!isFull, "the caller checks for room")
        if count >= rows.count / 2 { grow() }
        while rows[slot(of: nextNumber)].number != 0 { nextNumber += 1 }
        let slot = slot(of: nextNumber)
        rows[slot].number = nextNumber
        nextNumber += 1
        count += 1
        return slot
    }

    /// At replay, with the number that it had. `nil` when the log says what no holder wrote.
    mutating func insert(number: Int64) -> Int? {
        guard number > 0, number < .max, find(number) == nil, !isFull else { return nil }
        while rows[slot(of: number)].number != 0 {
            guard rows.count < LedgerLimits.reservationsMax else { return nil }
            grow()
        }
        let slot = slot(of: number)
        rows[slot].number = number
        nextNumber = max(nextNumber, number + 1)
        count += 1
        return slot
    }

    mutating func remove(_ slot: Int) {
        rows[slot] = ReservationSlot()
        count -= 1
    }

    mutating func skipNumbers(below number: Int64) { nextNumber = max(nextNumber, number) }

    private mutating func grow() {
        var larger = ContiguousArray(repeating: ReservationSlot(), count: rows.count * 2)
        for row in rows where row.number != 0 {
            larger[Int(truncatingIfNeeded: row.number) & (larger.count - 1)] = row
        }
        rows = larger
    }
}
