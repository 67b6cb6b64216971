import WeirCore
import WeirLedger

/// A message under way. `life` is the life of the process at the gateway's end: an answer to an
/// earlier one comes to a connection that is gone.
enum Message {
    case acquire(gateway: Int, LeasesRequest, sentAt: UInt64, life: Int)
    case acquireAnswer(gateway: Int, LeasesResponse, to: LeasesRequest, sentAt: UInt64, life: Int)
    case report(gateway: Int, LedgerReport, by: Incarnation, life: Int)
    case reportAnswer(gateway: Int, ReportResponse, to: LedgerReport, life: Int)
    case delegation(gateway: Int, agent: Int, OpenChild, NanoUSD)
    case final(gateway: Int, ChildFinal, life: Int)
    case agentReport(agent: Int, [ChildFinal], by: Incarnation, life: Int)
    case agentReportAnswer(agent: Int, [ChildFinal], inquiries: [OpenChild], life: Int)
}

struct Violation: Error, CustomStringConvertible { var description: String }

/// Store, gateways and agents' sidecars, with a network that loses, repeats, delays and reorders,
/// processes that crash and pause, clocks that step. One seed, one history.
struct World {
    static let millisecond: UInt64 = 1_000_000
    static let limit = NanoUSD(10_000)

    var random: SeededRandom
    var now: UInt64 = 100_000_000_000
    /// Ten seconds before a month's end, so that most histories see it.
    var wall = UnixTime(
        milliseconds: UnixTime(CivilDate(year: 2026, month: 4, day: 1)).milliseconds - 10_000)
    var store = SimulatedStore(limit: World.limit, maxLease: NanoUSD(3_000))
    var gateways: [SimulatedGateway] = []
    var agents: [SimulatedAgent] = []
    var gatewayLives: [Int] = []
    var agentLives: [Int] = []
    var partitioned: [Int: UInt64] = [:]
    var network: [(at: UInt64, message: Message)] = []
    /// Who pays for a child: told by the world, which sees everything.
    var payers: [ChildKey: [AccountKey]] = [:]
    var amounts: [ChildKey: NanoUSD] = [:]
    var failing: Set<String> = []
    var outstandingAsks: [Int: (request: LeasesRequest, at: UInt64)] = [:]
    var isQuiet = false
    var served = 0

    init(seed: UInt64) {
        random = SeededRandom(seed: seed)
        for _ in 0..<(2 + random.below(2)) {
            var gateway = SimulatedGateway()
            gateway.bootOffset = UInt64(random.below(1_000_000)) * World.millisecond
            gateway.wallOffset = Int64(random.below(4_000)) - 2_000
            let incarnation = store.incarnations.join()
            gateway.log.commit(gateway.book.begin(incarnation, mayRelease: false))
            gateway.incarnation = incarnation
            gateways.append(gateway)
            gatewayLives.append(0)
        }
        for _ in 0..<2 {
            var agent = SimulatedAgent()
            agent.incarnation = store.incarnations.join()
            agents.append(agent)
            agentLives.append(0)
        }
    }

    // MARK: The network

    mutating func send(_ message: Message) {
        if !isQuiet, random.chance(8) { return }
        let copies = !isQuiet && random.chance(8) ? 2 : 1
        for _ in 0..<copies {
            let slow = !isQuiet && random.chance(6)
            let delay = UInt64(slow ? random.below(4_000) : 1 + random.below(20))
            network.append((now + delay * World.millisecond, message))
        }
    }

    /// Hands over whatever is due, in any order.
    mutating func deliver() throws {
        while let index = network.indices.filter({ network[$0].at <= now }).randomElement(
            using: &random)
        {
            let message = network.remove(at: index).message
            try receive(message)
        }
    }

    private mutating func receive(_ message: Message) throws {
        switch message {
        case .acquire(let gateway, let request, let sentAt, let life):
            guard isReachable(gateway) else { return }
            let response = store.acquire(request, now: wall)
            send(
                .acquireAnswer(
                    gateway: gateway, response, to: request, sentAt: sentAt, life: life))
        case .acquireAnswer(let gateway, let response, let request, let sentAt, let life):
            guard isLive(gateway, life), isReachable(gateway) else { return }
            // A late answer to a request that was given up is no answer to the one under way.
            if outstandingAsks[gateway]?.request == request { outstandingAsks[gateway] = nil }
            let entries = gateways[gateway].book.apply(
                response, to: request, sentAt: sentAt, now: bootTime(gateway))
            gateways[gateway].log.commit(entries)
        case .report(let gateway, let report, let holder, let life):
            guard isReachable(gateway) else { return }
            let response = store.report(report, childFinals: [], by: holder)
            send(.reportAnswer(gateway: gateway, response, to: report, life: life))
        case .reportAnswer(let gateway, let response, let report, let life):
            guard isLive(gateway, life), isReachable(gateway) else { return }
            let entries = gateways[gateway].book.apply(
                response, to: report, now: bootTime(gateway))
            gateways[gateway].log.commit(entries)
        case .delegation(let gateway, let agent, let child, let amount):
            accept(gateway, agent, child, amount)
        case .final(let gateway, let final, let life):
            guard isLive(gateway, life) else { return }
            takeFinal(gateway, final)
        case .agentReport(let agent, let finals, let holder, let life):
            guard isReachable(100 + agent) else { return }
            for final in finals { store.incarnations.finalReported(final) }
            let inquiries = store.incarnations.takeInquiries(for: holder)
            send(.agentReportAnswer(agent: agent, finals, inquiries: inquiries, life: life))
        case .agentReportAnswer(let agent, let finals, let inquiries, let life):
            guard !agents[agent].isDown, agentLives[agent] == life else { return }
            agents[agent].book.finalsReported(finals)
            agents[agent].log.commit(agents[agent].book.answer(inquiries.map(\.key)))
        }
    }

    private func isReachable(_ part: Int) -> Bool { now >= partitioned[part] ?? 0 }

    private func isLive(_ gateway: Int, _ life: Int) -> Bool {
        !gateways[gateway].isDown && gatewayLives[gateway] == life
    }

    func bootTime(_ gateway: Int) -> UInt64 { now + gateways[gateway].bootOffset }

    // MARK: What the parts do

    mutating func takeFinal(_ gateway: Int, _ final: ChildFinal) {
        guard let entry = gateways[gateway].book.finalEntry(final) else { return }
        gateways[gateway].log.commit(entry)
        gateways[gateway].book.childFinal(final.key, consumed: final.consumed)
        gateways[gateway].open.remove(final.key.child)
    }

    mutating func request(_ gateway: Int) throws {
        let time = UnixTime(
            milliseconds: wall.milliseconds + gateways[gateway].wallOffset)
        let user = "user-\(random.below(3))"
        let terms = [("user", user), ("tenant", "acme")].map { scope, id in
            AccountTerms(
                key: AccountKey(
                    unit: .usd, scope: scope == "user" ? .user : .tenant,
                    period: Period(.month, at: time), id: id),
                limit: World.limit, maxLease: NanoUSD(3_000), policyNumber: 1)
        }
        let isFixed = random.chance(50)
        let amount = NanoUSD(Int64(1 + random.below(random.chance(5) ? 5_000 : 400)))
        let boot = bootTime(gateway)
        guard let payer = gateways[gateway].book.payer(for: terms, now: boot) else {
            throw Violation(description: "no payer")
        }
        let outcome = gateways[gateway].book.reserve(
            payer, amount: amount, least: isFixed ? amount : .zero, now: boot)
        if case .exhausted(let key, _) = outcome { try checkExhausted(key, amount) }
        guard case .reserved(let reservation) = outcome else { return }
        if random.chance(10) {
            gateways[gateway].book.cancel(reservation)
            return
        }
        let agent = random.below(agents.count)
        let audience = agents[agent].incarnation
        guard let key = gateways[gateway].book.key(of: reservation),
            let opened = gateways[gateway].book.open(
                reservation, as: .child, audience: audience)
        else { throw Violation(description: "a reservation cannot be opened") }
        gateways[gateway].log.commit(.opened(opened))
        guard payers.updateValue(terms.map(\.key), forKey: key) == nil else {
            throw Violation(description: "child \(key) was used twice")
        }
        amounts[key] = amount
        gateways[gateway].open.insert(key.child)
        send(
            .delegation(
                gateway: gateway, agent: agent, OpenChild(key: key, audience: audience), amount))
    }

    /// Calls end without an answer while their requests may still be on the way; `all`: every one.
    mutating func loseCalls(_ gateway: Int, all: Bool = false) {
        for key in gateways[gateway].book.openChildren() where all || random.chance(3) {
            gateways[gateway].book.childLost(key)
        }
    }

    /// Rule 9: nobody is told 402 while a settlement could still make room.
    private func checkExhausted(_ key: AccountKey, _ amount: NanoUSD) throws {
        var spent: Int64 = 0
        for (child, accounts) in payers where accounts.contains(key) {
            let recorded = agents.lazy.compactMap { $0.records[child] }.first
            spent += (recorded ?? amounts[child] ?? .zero).rawValue
        }
        if spent + amount.rawValue <= World.limit.rawValue {
            throw Violation(description: "402 with room for it: \(key), \(spent) + \(amount)")
        }
    }

    private mutating func accept(
        _ gateway: Int, _ agent: Int, _ child: OpenChild, _ amount: NanoUSD
    ) {
        // Sealed for another life: refused before anything is journaled.
        guard !agents[agent].isDown, agents[agent].incarnation == child.audience else { return }
        guard
            case .accepted(let accepted) = agents[agent].book.accept(
                child.key, issuer: child.key.issuer, amount: amount)
        else { return }
        agents[agent].log.commit(.accepted(accepted))
        agents[agent].running.append(
            SimulatedAgent.Running(
                number: accepted.number, key: child.key, amount: amount,
                endsAt: now + UInt64(random.below(300)) * World.millisecond, gateway: gateway))
    }

    mutating func finishAttempts(_ agent: Int) {
        guard !agents[agent].isDown else { return }
        for running in agents[agent].running where running.endsAt <= now {
            let cost = NanoUSD(Int64(random.below(Int(running.amount.rawValue) + 1)))
            agents[agent].record(running.number, running.key, cost: cost)
            served += 1
            send(
                .final(
                    gateway: running.gateway, ChildFinal(key: running.key, consumed: cost),
                    life: gatewayLives[running.gateway]))
        }
        agents[agent].running.removeAll { $0.endsAt <= now }
    }
}
