import SidecarCore

/// The life of the one connection to the control plane. Pure: time and randomness come in, actions
/// go out.
///
///     waiting --due--> connecting --connected--> greeting --SETTINGS--> open
///        ^                 |                        |                    |
///        '------ lost (next replica, longer pause) -'--------------------'
///
/// The pause grows with each attempt until a connection has been open for a while, and is drawn
/// between half of it and all of it. A connection that opens and breaks at once does not reset it:
/// otherwise a replica that greets and says goodbye would keep us busy.
struct LinkMachine {
    enum Action: Equatable {
        case connect(replica: Int)
        case close
        case ping
        /// Requests may be sent from now on.
        case opened
        /// What was in flight has failed.
        case lost
    }

    private enum State: Equatable {
        case stopped
        case waiting(due: UInt64)
        case connecting(deadline: UInt64)
        case greeting(deadline: UInt64)
        case open(since: UInt64, heard: UInt64, pinged: Bool)
    }

    private var state = State.stopped
    private var failures = 0
    private var replica = 0
    private(set) var replicaCount: Int

    init(replicaCount: Int) {
        precondition(replicaCount > 0, "a link needs somewhere to go")
        self.replicaCount = replicaCount
    }

    var isOpen: Bool { if case .open = state { true } else { false } }

    /// When `timePassed` has something to do; `nil` when it never has.
    var dueNanoseconds: UInt64? {
        switch state {
        case .stopped: nil
        case .waiting(let due), .connecting(let due), .greeting(let due): due
        case .open(_, let heard, let pinged):
            heard + UplinkLimits.silenceNanoseconds + (pinged ? UplinkLimits.pongNanoseconds : 0)
        }
    }

    mutating func start(now: UInt64) -> [Action] {
        guard state == .stopped else { return [] }
        return connect(now)
    }

    mutating func connected(now: UInt64) -> [Action] {
        guard case .connecting = state else { return [] }
        state = .greeting(deadline: now + UplinkLimits.greetingNanoseconds)
        return []
    }

    mutating func settingsReceived(now: UInt64) -> [Action] {
        guard case .greeting = state else { return [] }
        state = .open(since: now, heard: now, pinged: false)
        return [.opened]
    }

    /// Any byte from the peer is a sign of life.
    mutating func heard(now: UInt64) {
        if case .open(let since, _, _) = state {
            state = .open(since: since, heard: now, pinged: false)
        }
    }

    /// The connection failed or the replica said goodbye, at whatever stage. `random` is anything,
    /// evenly distributed.
    mutating func failed(now: UInt64, random: UInt64) -> [Action] {
        var actions = [Action.close]
        switch state {
        case .stopped, .waiting: return []
        case .connecting, .greeting: break
        case .open(let since, _, _):
            if now - since >= UplinkLimits.stableNanoseconds { failures = 0 }
            actions.append(.lost)
        }
        replica = (replica + 1) % replicaCount
        state = .waiting(due: now + pause(random))
        failures += 1
        return actions
    }

    mutating func timePassed(now: UInt64, random: UInt64) -> [Action] {
        guard let due = dueNanoseconds, due <= now else { return [] }
        switch state {
        case .stopped: return []
        case .waiting: return connect(now)
        case .connecting, .greeting, .open(_, _, pinged: true):
            return failed(now: now, random: random)
        case .open(let since, let heard, pinged: false):
            state = .open(since: since, heard: heard, pinged: true)
            return [.ping]
        }
    }

    /// The control plane named its replicas; the connection stays as it is.
    mutating func replicasChanged(count: Int) {
        precondition(count > 0, "a link needs somewhere to go")
        replicaCount = count
        replica %= count
    }

    mutating func stop() -> [Action] {
        let wasOpen = isOpen
        let hadSocket = state != .stopped
        state = .stopped
        return (hadSocket ? [.close] : []) + (wasOpen ? [.lost] : [])
    }

    private mutating func connect(_ now: UInt64) -> [Action] {
        state = .connecting(deadline: now + UplinkLimits.connectNanoseconds)
        return [.connect(replica: replica)]
    }

    private func pause(_ random: UInt64) -> UInt64 {
        let doublings = min(failures, 16)
        let whole = min(
            UplinkLimits.backoffNanoseconds << UInt64(doublings),
            UplinkLimits.backoffNanosecondsMax)
        return whole / 2 + random % (whole / 2 + 1)
    }
}
