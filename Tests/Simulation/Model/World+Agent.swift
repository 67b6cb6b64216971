import WeirCore
import WeirLedger

/// What agents' sidecars do, in the order in which `SidecarLedger` does it.
extension World {
    func accept(
        _ agent: Int, from gateway: Int, _ key: ChildKey, audience: Incarnation, _ amount: Int64
    ) throws {
        // Sealed for another life: refused before anything is journaled.
        guard !agents[agent].isDown, agents[agent].incarnation == audience else {
            return hit(.childNeverArrived)
        }
        guard
            case .accepted(let accepted) = agents[agent].book.accept(
                key, issuer: key.issuer, amount: NanoUSD(amount))
        else { return }
        if !isCalm, random.chance(1) {
            hit(.crashBetweenSteps)
            return crashAgent(agent)
        }
        agents[agent].log.commit(.accepted(accepted))
        // A fixed price is due once bytes went upstream.
        let least = truth.children[key]?.least ?? 0
        let cost = least + random.below(amount - least + 1)
        try truth.accepted(key, cost: cost)
        agents[agent].running[accepted.number] = SimulatedAgent.Running(
            key: key, amount: amount, cost: cost, gateway: gateway)
        schedule(
            .attemptEnds(agent: agent, life: agents[agent].life, accepted.number), in: 300)
    }

    func endAttempt(_ agent: Int, _ number: Int64) throws {
        guard let running = agents[agent].running.removeValue(forKey: number) else { return }
        try record(agent, number, running.key, cost: running.cost)
        let gateway = running.gateway
        send(
            .final(
                gateway: gateway, life: gateways[gateway].life,
                ChildFinal(key: running.key, consumed: NanoUSD(running.cost))))
    }

    private func record(_ agent: Int, _ number: Int64, _ key: ChildKey, cost: Int64) throws {
        agents[agent].log.commit(.delegationSettled(number: number, cost: cost))
        try truth.recorded(key, cost: cost)
        agents[agent].book.settle(number, cost: NanoUSD(cost))
    }

    func reportFinals(_ agent: Int) {
        guard !agents[agent].isDown else { return }
        send(
            .finals(
                agent: agent, life: agents[agent].life, agents[agent].book.finalsToReport(),
                by: agents[agent].incarnation))
        if random.chance(200) { agents[agent].log.sync() }
        if random.chance(20) {
            hit(.journalCompacted)
            agents[agent].log.compact(agents[agent].snapshot())
        }
    }

    func answered(_ agent: Int, _ inquiries: [OpenChild], kept: [ChildFinal]) {
        agents[agent].book.finalsReported(kept)
        // A log that is not whole may lack what its life accepted: nothing is said of that.
        let known = agents[agent].wholeSince...agents[agent].incarnation
        let entries = agents[agent].book.answer(
            inquiries.filter { known.contains($0.audience) }.map(\.key))
        for entry in entries { agents[agent].log.commit(entry) }
        hit(.inquiryAnswered, entries.count)
    }

    // MARK: Crashes and restarts

    func crashAgent(_ agent: Int) {
        hit(.agentCrash)
        agents[agent].crash()
        schedule(.restartAgent(agent), in: 4_000)
    }

    /// Replays, and settles at the worst case what was open (rule 6).
    func restartAgent(_ agent: Int) throws {
        guard agents[agent].isDown else { return }
        agents[agent].running = [:]
        let fate = isCalm ? 999 : random.below(1_000)
        let member = member(ofAgent: agent)
        if fate < 80 {
            hit(.agentPowerLoss)
            agents[agent].log.losePower()
        } else if fate < 130 {
            hit(.agentJournalLost)
            agents[agent].log = SimulatedLog()
        }
        guard agents[agent].replay() else { throw Violation("the log of agent \(agent) is bad") }
        agents[agent].isDown = false
        let circumstances = agents[agent].log.circumstances()
        let isWhole = circumstances.mayResume && fate >= 130
        let predecessor = agents[agent].incarnation
        if !isWhole || fate < 600 {
            let successor = join(leases: false)
            if fate >= 130 || fate < 80 {
                _ = store.incarnations.adopt(predecessor, by: successor)
            }
            if !isWhole {
                orphans.formUnion(lives[member])
                lives[member] = []
                agents[agent].wholeSince = successor
            }
            lives[member].append(successor)
            agents[agent].incarnation = successor
            agents[agent].log.settle()
        }
        for open in agents[agent].book.openDelegations {
            let cost = isPlanted(.crashedAttemptsAreFree) ? 0 : open.amount
            // A power loss may have taken the first record of it.
            if fate < 80, truth.isRecorded(open.key) {
                truth.recordedAgain(open.key, cost: cost)
                agents[agent].log.commit(.delegationSettled(number: open.number, cost: cost))
                agents[agent].book.settle(open.number, cost: NanoUSD(cost))
            } else {
                try record(agent, open.number, open.key, cost: cost)
            }
        }
        scheduleReport(ofAgent: agent)
    }
}
