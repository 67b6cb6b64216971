import WeirCore
import WeirLedger

extension World {
    func send(_ message: Message) {
        if !isCalm, random.chance(30) { return hit(.messageLost) }
        var copies = 1
        if !isCalm, random.chance(30) {
            copies = 2
            hit(.messageRepeated)
        }
        for _ in 0..<copies {
            sentOrder += 1
            let isSlow = !isCalm && random.chance(40)
            if isSlow { hit(.messageDelayed) }
            let delay = isSlow ? random.milliseconds(6_000) : random.milliseconds(15)
            queue.push(.message(message, order: sentOrder), at: now + delay + Self.millisecond)
        }
    }

    func deliver(_ message: Message, _ order: UInt64) throws {
        let (member, crosses) = end(of: message)
        if crosses, now < partitionedUntil[member] { return hit(.messageCutOff) }
        if order < deliveredOrder[member] { hit(.messageOvertaken) }
        deliveredOrder[member] = max(deliveredOrder[member], order)
        switch message {
        case .acquire(let gateway, let life, let request, let holder, let sentAt):
            grant(gateway, life, request, by: holder, sentAt: sentAt)
        case .report(let gateway, let life, let report, let holder, let sentAt):
            let wasMissing = store.incarnations.missing.contains(holder)
            let response = store.report(report, by: holder)
            heard(holder, report, sentAt: sentAt)
            if wasMissing, !store.incarnations.missing.contains(holder) { hasSaidAll(holder) }
            send(.reported(gateway: gateway, life: life, response, to: report))
        case .finals(let agent, let life, let finals, let holder):
            for final in finals { store.incarnations.finalReported(final) }
            let inquiries = store.incarnations.takeInquiries(for: holder)
            send(.inquiries(agent: agent, life: life, inquiries, kept: finals))
        case .inquiries(let agent, let life, let inquiries, let kept):
            guard agents[agent].life == life, !agents[agent].isDown else { return }
            answered(agent, inquiries, kept: kept)
        case .delegation(let gateway, let agent, let key, let audience, let amount):
            try accept(agent, from: gateway, key, audience: audience, amount)
        case .grants(let gateway, let life, _, _, _), .reported(let gateway, let life, _, _),
            .recall(let gateway, let life, _), .final(let gateway, let life, _):
            guard gateways[gateway].life == life else { return }
            whenRunning(gateway, .message(message, order: order)) {
                try take(message, gateway)
            }
        }
    }

    private func take(_ message: Message, _ gateway: Int) throws {
        switch message {
        case .grants(_, _, let response, let request, let sentAt):
            try granted(gateway, response, to: request, sentAt: sentAt)
        case .reported(_, _, let response, let report):
            try reported(gateway, response, to: report)
        case .recall(_, _, let leases): try recalled(gateway, leases)
        case .final(_, _, let final): try takeFinal(gateway, final)
        case .acquire, .report, .delegation, .finals, .inquiries: break
        }
    }

    /// The member at one end, and whether the control plane is at the other.
    private func end(of message: Message) -> (member: Int, crosses: Bool) {
        switch message {
        case .acquire(let gateway, _, _, _, _), .grants(let gateway, _, _, _, _),
            .report(let gateway, _, _, _, _), .reported(let gateway, _, _, _),
            .recall(let gateway, _, _):
            (gateway, true)
        case .delegation(_, let agent, _, _, _): (member(ofAgent: agent), false)
        case .final(let gateway, _, _): (gateway, false)
        case .finals(let agent, _, _, _), .inquiries(let agent, _, _, _):
            (member(ofAgent: agent), true)
        }
    }

    /// A replica of the control plane asks the store, with the policy that it holds.
    private func grant(
        _ gateway: Int, _ life: Int, _ request: LeasesRequest, by holder: Incarnation,
        sentAt: UInt64
    ) {
        store.release(request.release, by: holder)
        let number = replicaPolicies[random.below(replicaPolicies.count)]
        let policy = policies[number - 1]
        var response = LeasesResponse(grants: [], epoch: store.incarnations.epoch)
        let isQuiet = epoch.isQuiet(at: now, store) && !isPlanted(.newEpochsGrantAtOnce)
        if !epoch.isQuiet(at: now, store) { grantsBegin() }
        for acquire in request.acquire {
            guard let account = AccountTable.index(acquire.account) else {
                // A minute after those that are looked at.
                response.grants.append(
                    LeaseGrant(
                        lease: acquire.lease, status: .unknownAccount, granted: .zero,
                        expiresInMilliseconds: 0, state: nil))
                continue
            }
            let scope = AccountTable.scope(of: account)
            let terms = AccountBook.Terms(
                limit: NanoUSD(policy.limits[scope]), policyNumber: Int64(number),
                maxLease: NanoUSD(policy.maxLease(scope)), now: storeTime)
            if truth.asked(account, by: number) { hit(.olderPolicyInUse) }
            let (grant, granted) = store.acquire(
                acquire, account: account, terms: terms, isQuiet: isQuiet)
            if let granted {
                truth.granted(granted, now: now, time: storeTime, store: store, policies)
                if granted.isNew { leavesWhatIsWithheld(granted, terms) }
                if granted.isNew { lagging?.grants.append(granted) }
                if granted.isNew, epoch.isQuiet(at: now, store) {
                    truth.fail("\(granted.lease) is granted before all holders have reported")
                }
            }
            if grant.status == .contended { recall(account, for: acquire.lease.incarnation) }
            response.grants.append(grant)
        }
        send(.grants(gateway: gateway, life: life, response, to: request, sentAt: sentAt))
    }

    private func recall(_ account: Int, for holder: Incarnation) {
        for (owner, leases) in store.recalls(of: account, for: holder).sorted(by: {
            $0.key < $1.key
        }) {
            guard let gateway = gateways.firstIndex(where: { $0.incarnation == owner }) else {
                continue
            }
            send(.recall(gateway: gateway, life: gateways[gateway].life, leases))
        }
    }
}
