import WeirCore
import WeirLedger

/// A message under way. `life` is the process at the mesh member's end.
enum Message {
    case acquire(gateway: Int, life: Int, LeasesRequest, by: Incarnation, sentAt: UInt64)
    case grants(gateway: Int, life: Int, LeasesResponse, to: LeasesRequest, sentAt: UInt64)
    case report(gateway: Int, life: Int, LedgerReport, by: Incarnation, sentAt: UInt64)
    case reported(gateway: Int, life: Int, ReportResponse, to: LedgerReport)
    case recall(gateway: Int, life: Int, [LeaseID])
    case delegation(gateway: Int, agent: Int, ChildKey, audience: Incarnation, amount: Int64)
    case final(gateway: Int, life: Int, ChildFinal)
    case finals(agent: Int, life: Int, [ChildFinal], by: Incarnation)
    case inquiries(agent: Int, life: Int, [OpenChild], kept: [ChildFinal])
}

enum Event {
    case message(Message, order: UInt64)
    case request(gateway: Int)
    case ask(gateway: Int)
    case report(gateway: Int, life: Int, isExtra: Bool)
    case restartGateway(Int)
    case useEnds(gateway: Int, life: Int, Reservation)
    case attemptEnds(agent: Int, life: Int, Int64)
    case reportFinals(agent: Int, life: Int)
    case restartAgent(Int)
    case fault
    case policyArrives(gateway: Int)
    case writeOff(Incarnation)
    case failover
    case timePasses(until: UInt64)
}

package struct Violation: Error, CustomStringConvertible {
    package let description: String
    init(_ description: String) { self.description = description }
}

/// The process died at this step; what it had not written down is gone.
struct Crashed: Error {}

/// One history: store, control-plane replicas, gateways and agents' sidecars, with a network that
/// loses, repeats, delays and reorders, processes that crash and pause, volumes that are lost or
/// copied, and clocks that step. One seed, one history: whatever happens is
/// drawn from it, in the order of `EventQueue`.
package final class World {
    static let millisecond: UInt64 = 1_000_000
    static let second: UInt64 = 1_000 * millisecond
    static let eventCount = 2_000

    var random: SeededRandom
    var now: UInt64 = 1_000 * World.second
    var storeClockOffset: Int64 = 0
    let wallStart: Int64
    var queue = EventQueue<Event>()
    var store = SimulatedStore()
    var lagging: LaggingReplica?
    var epoch = Epoch()
    let hasFailovers: Bool
    /// Users' tiers let them spend without a control plane.
    let hasStandby: Bool
    /// Policy versions; 1 is the first. Each replica of the control plane holds one of them.
    var policies: [PolicyVersion] {
        didSet {
            for (scope, limit) in policies[policies.count - 1].limits.enumerated() {
                highestLimits[scope] = max(highestLimits[scope], limit)
            }
        }
    }
    private(set) var highestLimits: [Int64]
    var replicaPolicies = [1, 1]
    var gateways: [SimulatedGateway] = []
    var agents: [SimulatedAgent] = []
    /// Lives whose leases or children a member continues; and those that nobody does any more.
    var lives: [[Incarnation]] = []
    var orphans: Set<Incarnation> = []
    var partitionedUntil: [UInt64]
    var truth = Truth()
    package private(set) var counts = FaultCounts()
    package private(set) var eventsDone = 0
    /// No faults any more.
    var isCalm = false
    var sentOrder: UInt64 = 0
    var deliveredOrder: [UInt64]
    /// Milliseconds between requests of a gateway.
    let pace: Int

    package init(seed: UInt64) {
        random = SeededRandom(seed: seed)
        pace = [25, 80, 250, 800][random.below(4)]
        hasFailovers = random.chance(300)
        hasStandby = random.chance(250)
        // In some histories everything is soon spent.
        policies = [PolicyVersion.first.divided(by: random.chance(300) ? 8 : 1)]
        highestLimits = policies[0].limits
        wallStart = AccountTable.turn.milliseconds - Int64(5_000 + random.below(40_000))
        let gatewayCount = 2 + random.below(2)
        partitionedUntil = Array(repeating: 0, count: gatewayCount + 2)
        deliveredOrder = Array(repeating: 0, count: gatewayCount + 2)
        for gateway in 0..<gatewayCount {
            gateways.append(SimulatedGateway())
            gateways[gateway].bootOffset = random.milliseconds(1_000_000)
            gateways[gateway].wallOffset = Int64(random.below(4_000)) - 2_000
            beginGateway(gateway, mayRelease: false)
        }
        for agent in 0..<2 {
            agents.append(SimulatedAgent())
            agents[agent].incarnation = join(leases: false)
            agents[agent].wholeSince = agents[agent].incarnation
            lives.append([agents[agent].incarnation])
            scheduleReport(ofAgent: agent)
        }
        for gateway in gateways.indices { schedule(.request(gateway: gateway), in: pace) }
        schedule(.fault, in: 300)
    }

    /// Runs the history to its end. Throws the violation that it finds.
    package func run() throws {
        while eventsDone < Self.eventCount, let next = queue.pop() {
            now = max(now, next.at)
            try handle(next.event)
            eventsDone += 1
            try check()
        }
        try settleDown()
    }

    func hit(_ kind: FaultKind, _ times: Int = 1) { counts.hit(kind, times) }

    /// Within so many milliseconds.
    func schedule(_ event: Event, in milliseconds: Int) {
        queue.push(event, at: now + random.milliseconds(max(1, milliseconds)) + Self.millisecond)
    }

    package var served: Int { truth.served }

    // MARK: Clocks

    func wall(offset: Int64 = 0) -> UnixTime {
        UnixTime(milliseconds: wallStart + Int64(now / Self.millisecond) - 1_000_000 + offset)
    }

    var storeTime: UnixTime { wall(offset: storeClockOffset) }

    func bootTime(_ gateway: Int) -> UInt64 { now + gateways[gateway].bootOffset }

    // MARK: Lives

    func join(leases: Bool = true) -> Incarnation {
        let clock = Int64(now / Self.millisecond)
        return store.incarnations.join(clock: clock, leases: leases)
    }

    func member(ofAgent agent: Int) -> Int { gateways.count + agent }

    func beginGateway(_ gateway: Int, mayRelease: Bool) {
        let incarnation = join()
        let member = gateway
        if lives.count <= member { lives.append([]) }
        if !mayRelease {
            orphans.formUnion(lives[member])
            lives[member] = []
        }
        lives[member].append(incarnation)
        gateways[gateway].incarnation = incarnation
        gateways[gateway].log.commit(
            gateways[gateway].book.begin(incarnation, mayRelease: mayRelease))
        gateways[gateway].log.settle()
        gateways[gateway].log.sync()
        scheduleReport(ofGateway: gateway)
    }

    func scheduleReport(ofGateway gateway: Int, soon: Bool = false) {
        if soon {
            guard !gateways[gateway].isReportScheduled else { return }
            gateways[gateway].isReportScheduled = true
        }
        schedule(
            .report(gateway: gateway, life: gateways[gateway].life, isExtra: soon),
            in: soon ? 40 : 1_000)
    }

    func scheduleReport(ofAgent agent: Int) {
        schedule(.reportFinals(agent: agent, life: agents[agent].life), in: 1_000)
    }

    // MARK: Events

    func handle(_ event: Event) throws {
        switch event {
        case .message(let message, let order): try deliver(message, order)
        case .request(let gateway):
            guard !isCalm else { return }
            schedule(.request(gateway: gateway), in: pace * 2)
            whenRunning(gateway, event) { try request(gateway) }
        case .ask(let gateway):
            gateways[gateway].isAskScheduled = false
            whenRunning(gateway, event) { try ask(gateway) }
        case .report(let gateway, let life, let isExtra):
            guard gateways[gateway].life == life else { return }
            whenRunning(gateway, event) {
                if isExtra {
                    gateways[gateway].isReportScheduled = false
                } else {
                    scheduleReport(ofGateway: gateway)
                }
                try report(gateway)
            }
        case .useEnds(let gateway, let life, let reservation):
            guard gateways[gateway].life == life else { return }
            whenRunning(gateway, event) { try endUse(gateway, reservation) }
        case .restartGateway(let gateway): try restartGateway(gateway)
        case .attemptEnds(let agent, let life, let number):
            guard agents[agent].life == life else { return }
            try endAttempt(agent, number)
        case .reportFinals(let agent, let life):
            guard agents[agent].life == life else { return }
            scheduleReport(ofAgent: agent)
            reportFinals(agent)
        case .restartAgent(let agent): try restartAgent(agent)
        case .fault:
            guard !isCalm else { return }
            schedule(.fault, in: min(1_500, pace * 20))
            try disturb()
        case .policyArrives(let gateway):
            gateways[gateway].policy = policies.count
            gateways[gateway].payers = [:]
        case .writeOff(let incarnation): writeOff(incarnation)
        case .failover: failOver()
        case .timePasses(let end): if !isCalm { pass(until: end) }
        }
    }

    /// A paused process does it when it goes on; one that is down does not. `work` throws `Crashed`
    /// where the process dies in the middle of it.
    func whenRunning(_ gateway: Int, _ event: Event, _ work: () throws -> Void) {
        guard !gateways[gateway].isDown else { return }
        guard now >= gateways[gateway].pausedUntil else {
            return queue.push(event, at: gateways[gateway].pausedUntil)
        }
        do {
            try work()
        } catch let violation as Violation {
            truth.found = truth.found ?? violation
        } catch {
            hit(.crashBetweenSteps)
            crashGateway(gateway)
        }
    }

    /// A place in a process's work at which it may die.
    func step() throws {
        if !isCalm, random.chance(1) { throw Crashed() }
    }

    func commit(_ gateway: Int, _ entries: [LedgerEntry]) throws {
        for (index, entry) in entries.enumerated() {
            if index > 0, !isCalm, random.chance(2) {
                hit(.crashWithinACommit)
                throw Crashed()
            }
            gateways[gateway].log.commit(entry)
        }
        try step()
    }
}
