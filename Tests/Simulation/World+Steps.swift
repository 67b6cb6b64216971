import WeirCore
import WeirLedger

extension World {
    // MARK: Turns of the parts

    mutating func ask(_ gateway: Int) {
        if let ask = outstandingAsks[gateway] {
            guard now - ask.at > 500 * World.millisecond else { return }
            gateways[gateway].book.requestFailed(ask.request)
            outstandingAsks[gateway] = nil
        }
        let sentAt = bootTime(gateway)
        let (request, entries, _) = gateways[gateway].book.takeDemands(now: sentAt)
        gateways[gateway].log.commit(entries)
        guard !request.acquire.isEmpty || !request.release.isEmpty else { return }
        outstandingAsks[gateway] = (request, now)
        send(.acquire(gateway: gateway, request, sentAt: sentAt, life: gatewayLives[gateway]))
    }

    mutating func report(_ gateway: Int) {
        guard let incarnation = gateways[gateway].incarnation else { return }
        let time = UnixTime(
            milliseconds: wall.milliseconds + gateways[gateway].wallOffset)
        gateways[gateway].book.prepareNextPeriods(wall: time, now: bootTime(gateway))
        gateways[gateway].log.commit(gateways[gateway].book.maintain(now: bootTime(gateway)))
        let report = gateways[gateway].book.makeReport()
        send(.report(gateway: gateway, report, by: incarnation, life: gatewayLives[gateway]))
    }

    mutating func reportFinals(_ agent: Int) {
        guard !agents[agent].isDown else { return }
        send(
            .agentReport(
                agent: agent, agents[agent].book.finalsToReport(), by: agents[agent].incarnation,
                life: agentLives[agent]))
    }

    // MARK: Faults

    mutating func crashGateway(_ gateway: Int) {
        gateways[gateway].crash()
        gatewayLives[gateway] += 1
        outstandingAsks[gateway] = nil
    }

    mutating func restartGateway(_ gateway: Int) throws {
        guard gateways[gateway].replay() else {
            throw Violation(description: "the log of gateway \(gateway) does not replay")
        }
        // Either the control plane cannot be asked and the life goes on, or a new one begins.
        guard let predecessor = gateways[gateway].incarnation, random.chance(60) else { return }
        let successor = store.incarnations.join()
        guard store.incarnations.adopt(predecessor, by: successor) else {
            throw Violation(description: "\(predecessor) cannot be adopted")
        }
        gateways[gateway].log.commit(gateways[gateway].book.begin(successor, mayRelease: true))
        gateways[gateway].incarnation = successor
    }

    mutating func restartAgent(_ agent: Int) throws {
        guard agents[agent].restart() else {
            throw Violation(description: "the log of agent \(agent) does not replay")
        }
        guard random.chance(60) else { return }
        let (predecessor, successor) = (agents[agent].incarnation, store.incarnations.join())
        guard store.incarnations.adopt(predecessor, by: successor) else {
            throw Violation(description: "\(predecessor) cannot be adopted")
        }
        agents[agent].incarnation = successor
    }

    // MARK: A step

    mutating func step() throws {
        let elapsed = UInt64(random.below(random.chance(5) ? 2_000 : 20)) * World.millisecond
        advance(elapsed)
        try deliver()
        for agent in agents.indices { finishAttempts(agent) }
        for gateway in gateways.indices {
            if gateways[gateway].isDown {
                if random.chance(15) { try restartGateway(gateway) }
                continue
            }
            // A paused process finds its clock far ahead, and its messages waiting.
            guard now >= gateways[gateway].pausedUntil else { continue }
            for _ in 0..<random.below(4) { try request(gateway) }
            loseCalls(gateway)
            if random.chance(60) { ask(gateway) }
            if random.chance(25) { report(gateway) }
            if random.chance(2) { gateways[gateway].log.compact(gateways[gateway].snapshot()) }
            try disturb(gateway)
        }
        for agent in agents.indices {
            if agents[agent].isDown {
                if random.chance(20) { try restartAgent(agent) }
            } else {
                if random.chance(30) { reportFinals(agent) }
                if random.chance(2) {
                    agents[agent].log.compact(
                        [.numbers(reservations: 1, delegations: agents[agent].book.nextNumber)]
                            + agents[agent].book.snapshot())
                }
                if random.chance(1) {
                    agents[agent].crash()
                    agentLives[agent] += 1
                }
            }
        }
        try check()
    }

    private mutating func disturb(_ gateway: Int) throws {
        switch random.below(200) {
        case 0, 1: crashGateway(gateway)
        case 2:
            gateways[gateway].pausedUntil = now + UInt64(random.below(90_000)) * World.millisecond
        case 3:
            partitioned[gateway] = now + UInt64(random.below(8_000)) * World.millisecond
        case 4:
            partitioned[100 + random.below(agents.count)] =
                now + UInt64(random.below(8_000)) * World.millisecond
        case 5: gateways[gateway].wallOffset = Int64(random.below(10_000)) - 5_000
        default: break
        }
    }

    private mutating func advance(_ nanoseconds: UInt64) {
        now += nanoseconds
        wall = UnixTime(
            milliseconds: wall.milliseconds + Int64(nanoseconds / World.millisecond))
    }

    // MARK: What must hold

    func recorded(_ account: AccountKey) -> Int64 {
        agents.reduce(0) { sum, agent in
            agent.records.reduce(sum) { sum, record in
                payers[record.key]?.contains(account) == true ? sum + record.value.rawValue : sum
            }
        }
    }

    func check() throws {
        if store.wasGrantedTwice { throw Violation(description: "a lease was granted twice") }
        for (key, book) in store.accounts {
            if book.committed > book.limit || book.overrun != 0 {
                throw Violation(
                    description: "\(key): \(book.committed) of \(book.limit), \(book.overrun) over")
            }
        }
        for gateway in gateways where !gateway.isDown {
            if let lease = gateway.book.overdrawnLease() {
                throw Violation(description: "lease \(lease) is overdrawn")
            }
        }
        for agent in agents where agent.wasRecordedTwice {
            throw Violation(description: "a delegation was recorded twice")
        }
    }

    /// No faults and no new requests any more: everything comes to rest, to the n$.
    mutating func settleDown() throws {
        isQuiet = true
        partitioned = [:]
        for gateway in gateways.indices {
            gateways[gateway].pausedUntil = 0
            if gateways[gateway].isDown { try restartGateway(gateway) }
        }
        for agent in agents.indices where agents[agent].isDown { try restartAgent(agent) }
        for _ in 0..<40 {
            advance(1_000 * World.millisecond)
            try deliver()
            for agent in agents.indices {
                finishAttempts(agent)
                reportFinals(agent)
            }
            for gateway in gateways.indices {
                loseCalls(gateway, all: true)
                ask(gateway)
                report(gateway)
            }
            try check()
        }
        try checkAtRest()
    }

    private func checkAtRest() throws {
        for (index, gateway) in gateways.enumerated() {
            if let child = gateway.book.openChildren().first {
                throw Violation(description: "gateway \(index): child \(child) is open for ever")
            }
        }
        for (key, book) in store.accounts {
            let truth = recorded(key)
            guard book.consumed == truth else {
                throw Violation(description: "\(key): \(book.consumed) charged, \(truth) recorded")
            }
            guard book.held == 0, book.committed == truth else {
                let open = book.leases.filter { !$0.value.isClosed }
                throw Violation(
                    description: "\(key): \(book.held) held by nobody: \(open), "
                        + "adopted \(store.incarnations.adoptedBy)")
            }
            guard truth <= World.limit.rawValue else {
                throw Violation(description: "\(key): overspent, \(truth)")
            }
        }
    }
}
