import WeirCore
import WeirLedger

extension World {
    /// Something goes wrong, or changes.
    func disturb() throws {
        let gateway = random.below(gateways.count)
        switch random.below(15) {
        case 0, 1:
            guard !gateways[gateway].isDown else { return }
            hit(.crash)
            crashGateway(gateway)
        case 2:
            let agent = random.below(agents.count)
            if !agents[agent].isDown { crashAgent(agent) }
        case 3:
            pause(gateway, random.milliseconds(random.chance(400) ? 90_000 : 3_000))
        case 4, 5:
            let member = random.below(partitionedUntil.count)
            partitionedUntil[member] = now + random.milliseconds(8_000)
            hit(.partition)
        case 6:
            gateways[gateway].wallOffset = Int64(random.below(10_000)) - 5_000
            hit(.gatewayClockStep)
        case 7:
            storeClockOffset = Int64(random.below(6_000)) - 3_000
            hit(.storeClockStep)
        case 8, 9: changePolicy()
        case 10, 11: copyIsStarted(gateway)
        case 12: skipTime()
        case 13: replicaLags()
        default: break
        }
    }

    /// SIGSTOP, or a machine that sleeps.
    func pause(_ gateway: Int, _ length: UInt64) {
        gateways[gateway].pausedUntil = max(gateways[gateway].pausedUntil, now + length)
        hit(.pause)
        if length > 60 * Self.second { hit(.pausePastExpiry) }
    }

    /// Nothing happens for a while: leases expire, and periods end.
    private func skipTime() {
        guard random.chance(200) else { return }
        pass(until: now + random.milliseconds(70_000))
    }

    func pass(until end: UInt64) {
        let before = storeTime
        now = max(now, end)
        hit(.leaseExpired)
        if before < AccountTable.turn, storeTime >= AccountTable.turn { hit(.periodRollOver) }
    }

    private func changePolicy() {
        var next = policies[0]
        let last = policies[policies.count - 1]
        for scope in next.limits.indices {
            let whole = next.limits[scope]
            next.limits[scope] = whole / 4 + random.below(whole)
            hit(next.limits[scope] < last.limits[scope] ? .limitLowered : .limitRaised)
        }
        policies.append(next)
        // Replicas and gateways hear of it at different times.
        replicaPolicies[random.below(replicaPolicies.count)] = policies.count
        for gateway in gateways.indices {
            schedule(.policyArrives(gateway: gateway), in: 3_000)
        }
    }

    // MARK: Gateways' processes

    func crashGateway(_ gateway: Int) {
        // Whatever the agents did, the log settles these at their whole amounts.
        for use in gateways[gateway].uses.values {
            truth.useEnded(use.account, amount: use.amount, used: use.amount)
        }
        gateways[gateway].crash()
        gateways[gateway].pausedUntil = 0
        schedule(.restartGateway(gateway), in: 5_000)
    }

    func restartGateway(_ gateway: Int) throws {
        guard gateways[gateway].isDown else { return }
        let fate = isCalm ? 999 : random.below(1_000)
        var isKnown = true
        switch fate {
        case 0..<60:
            hit(.powerLoss)
            truth.usesForgotten(gateways[gateway].usesUnused)
            gateways[gateway].log.losePower()
        case 60..<110:
            hit(.journalLost)
            gateways[gateway].log = SimulatedLog()
            isKnown = false
        case 110..<160:
            hit(.journalRestoredFromACopy)
            truth.usesForgotten(gateways[gateway].usesUnused)
            let count = random.below(gateways[gateway].log.entries.count + 1)
            gateways[gateway].log = gateways[gateway].log.copy(entries: count)
        default: break
        }
        guard gateways[gateway].replay() else {
            throw Violation("the log of gateway \(gateway) is bad")
        }
        gateways[gateway].isDown = false
        let circumstances = gateways[gateway].log.circumstances()
        let predecessor = gateways[gateway].book.incarnation
        if isKnown, circumstances.mayResume, fate < 500, predecessor != nil,
            gateways[gateway].book.isWhole
        {
            hit(.restartInTheSameLife)
            gateways[gateway].incarnation = predecessor ?? gateways[gateway].incarnation
            return scheduleReport(ofGateway: gateway)
        }
        try succeed(gateway, predecessor, circumstances)
    }

    private func succeed(
        _ gateway: Int, _ predecessor: Incarnation?, _ circumstances: JournalCircumstances
    ) throws {
        // Joins first, so that the store knows the number that adopts.
        if !circumstances.mayResume { gateways[gateway].book.markBroken() }
        let successor = join()
        let isAdopted =
            predecessor.map { store.incarnations.adopt($0, by: successor) } ?? false
        let mayRelease = circumstances.mayRelease(isAdopted: isAdopted)
        if mayRelease { hit(.restartAsSuccessor) }
        if !mayRelease || !circumstances.mayResume {
            orphans.formUnion(lives[gateway])
            lives[gateway] = []
        }
        lives[gateway].append(successor)
        gateways[gateway].incarnation = successor
        gateways[gateway].log.commit(
            gateways[gateway].book.begin(successor, mayRelease: mayRelease))
        gateways[gateway].log.settle()
        gateways[gateway].log.sync()
        scheduleReport(ofGateway: gateway)
    }

    /// A backup of the volume is started somewhere while its original lives on, or has a successor
    /// already: it cannot be told from the original by where it lies. Only the store's
    /// compare-and-set keeps it from giving back money that the original may spend.
    private func copyIsStarted(_ gateway: Int) {
        guard !gateways[gateway].isDown, lives[gateway].count > 1 else { return }
        let predecessor = lives[gateway][lives[gateway].count - 2]
        hit(.copyStartedAfterAdoption)
        var copy = LeaseBook()
        var isWhole = false
        for entry in gateways[gateway].log.entries {
            if case .life(let life, _) = entry, life > predecessor { break }
            guard copy.replay(entry) else { return }
            isWhole = true
        }
        guard isWhole, copy.incarnation == predecessor else { return }
        copy.replayed()
        let successor = join()
        orphans.insert(successor)
        let isAdopted = store.incarnations.adopt(predecessor, by: successor)
        _ = copy.begin(successor, mayRelease: isAdopted)
        _ = copy.maintain(now: bootTime(gateway) + 10 * Self.second)
        _ = store.report(copy.makeReport(), by: successor)
    }

    // MARK: Writing off

    func writeOffLater(_ incarnation: Incarnation) {
        schedule(.writeOff(incarnation), in: 20_000)
    }

    func writeOff(_ incarnation: Incarnation) {
        hit(.writeOff)
        for (account, amount) in store.writeOff(incarnation).enumerated() {
            truth.writtenOff[account] += amount
        }
    }
}
