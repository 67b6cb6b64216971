import WeirPolicy

/// The endpoints that serve one agent, and which of them gets the next request: the one mechanism
/// of a sidecar before several instances of its agent, and of a gateway before several sidecars.
/// Pure: times and randomness come in, choices go out; the owner keeps it behind a short mutex, so
/// that breakers and probes are those of the process and not of a worker.
///
/// # The choice
/// Two endpoints are drawn and the one whose next request costs less is taken (Mitzenmacher, "The
/// Power of Two Choices in Randomized Load Balancing", 2001), by `EndpointLoad`. Drawn are, in this
/// order, as long as there are any:
///
/// 1. an endpoint whose back-off is over: this request is its one probe;
/// 2. those that serve: closed circuit, healthy, not avoided after a failed connect;
/// 3. those that are avoided; 4. those that fail their health checks.
///
/// # Never the last one
/// Health checks and failed connects only change the order, so they never take the last endpoint
/// away. An open circuit does take its endpoint out, and where every circuit is open there are two
/// cases. One endpoint alone: its circuit is the agent's, and requests are refused until its
/// back-off is over. Several: the least bad (the first whose time comes) is tried early, after the
/// policy's `open` and not after a doubled back-off, one request at a time; a time that an endpoint
/// asked for itself is kept. Between those tries requests are refused, or with `.tryLeastBad` go to
/// the least bad all the same.
package struct EndpointSet<Key: Hashable & Sendable> {
    package enum WhenAllAreOut: Sendable { case refuse, tryLeastBad }

    /// What a request holds until its outcome. Given back exactly once.
    package struct Choice: Hashable, Sendable {
        package let key: Key
        package let startedNanoseconds: UInt64
        fileprivate let member: UInt32
        fileprivate let permit: CircuitBreaker.Permit?
        package var isProbe: Bool { permit?.isProbe ?? false }
    }

    package enum Pick: Equatable, Sendable {
        case chosen(Choice)
        /// Every circuit is open.
        case refused(retryAfterNanoseconds: UInt64)
        /// Nothing (else) may be tried.
        case none
    }

    package struct Status: Sendable {
        package var key: Key
        package var breaker: CircuitBreaker.Position
        package var openedBy: CircuitBreaker.Failure?
        package var isHealthy: Bool
        package var isAvoided: Bool
        package var outstanding: Int
        package var averageNanoseconds: UInt64
        /// By `CircuitBreaker.Failure.rawValue`, since the endpoint is known.
        package var failures: [UInt64]
        package var isServing: Bool { breaker == .closed && isHealthy && !isAvoided }
    }

    private struct Member {
        let key: Key
        let id: UInt32
        var breaker: CircuitBreaker
        var load = EndpointLoad()
        var isHealthy = true
        var failures = [UInt64](repeating: 0, count: CircuitBreaker.Failure.allCases.count)

        func serves(_ now: UInt64, from rank: Rank) -> Bool {
            guard breaker.isClosed else { return false }
            return switch rank {
            case .serving: isHealthy && !load.isAvoided(now: now)
            case .avoided: isHealthy
            case .unhealthy: true
            }
        }
    }

    private enum Rank: CaseIterable { case serving, avoided, unhealthy }

    private var members: ContiguousArray<Member> = []
    private var settings: AgentPolicy.Breaker
    private var nextID: UInt32 = 0

    package init(_ keys: [Key] = [], _ settings: AgentPolicy.Breaker) {
        self.settings = settings
        update(keys)
    }

    package var keys: [Key] { members.map(\.key) }
    package var count: Int { members.count }

    /// New endpoints from discovery; what is known of the others stays.
    package mutating func update(_ keys: [Key]) {
        let old = members
        members = []
        for key in keys where !members.contains(where: { $0.key == key }) {
            if let known = old.first(where: { $0.key == key }) {
                members.append(known)
            } else {
                nextID &+= 1
                members.append(Member(key: key, id: nextID, breaker: CircuitBreaker(settings)))
            }
        }
    }

    package mutating func change(_ settings: AgentPolicy.Breaker) {
        guard settings != self.settings else { return }
        self.settings = settings
        for index in members.indices { members[index].breaker.change(settings) }
    }

    /// What an active check found; anything but the first endpoint of that name is left alone.
    package mutating func setHealth(_ isHealthy: Bool, of key: Key) {
        guard let index = members.firstIndex(where: { $0.key == key }) else { return }
        members[index].isHealthy = isHealthy
    }

    // MARK: Choosing

    /// - Parameter random: any 64 bits.
    /// - Parameter onlyServing: nobody is better than one that is avoided or fails its checks.
    /// - Parameter allows: which endpoints this request may go to: those not tried yet, say.
    package mutating func pick(
        nowNanoseconds now: UInt64, random: UInt64,
        whenAllAreOut: WhenAllAreOut = .refuse, onlyServing: Bool = false,
        where allows: (Key) -> Bool = { _ in true }
    ) -> Pick {
        let due = members.firstIndex {
            $0.isHealthy && !$0.load.isAvoided(now: now)
                && ($0.breaker.probeNanoseconds().map { $0 <= now } ?? false) && allows($0.key)
        }
        if let due, case .admit(let permit) = members[due].breaker.decide(nowNanoseconds: now) {
            return .chosen(choose(due, permit, now))
        }
        for rank in Rank.allCases where rank == .serving || !onlyServing {
            guard let index = drawTwo(rank, now, random, allows) else { continue }
            return .chosen(choose(index, members[index].breaker.permitNow(), now))
        }
        if onlyServing { return .none }
        // Those that may not be tried may still serve others.
        let hasClosed = members.contains { $0.breaker.isClosed }
        if hasClosed, whenAllAreOut == .refuse { return .none }
        return pickWhereAllAreOut(now, random, whenAllAreOut, allows)
    }

    private mutating func pickWhereAllAreOut(
        _ now: UInt64, _ random: UInt64, _ whenAllAreOut: WhenAllAreOut, _ allows: (Key) -> Bool
    ) -> Pick {
        let early = members.count > 1
        var least: (index: Int, at: UInt64)?
        var anyone: Int?
        for index in members.indices where allows(members[index].key) {
            anyone = anyone ?? index
            guard let time = members[index].breaker.probeNanoseconds(early: early) else { continue }
            if time < least?.at ?? .max { least = (index, time) }
        }
        guard let anyone else { return .none }
        switch whenAllAreOut {
        case .tryLeastBad:
            let index = least?.index ?? anyone
            return .chosen(choose(index, members[index].breaker.permitNow(), now))
        case .refuse:
            let index = least?.index ?? anyone
            switch members[index].breaker.decide(nowNanoseconds: now, early: early) {
            case .admit(let permit): return .chosen(choose(index, permit, now))
            case .refuse(let wait): return .refused(retryAfterNanoseconds: wait)
            }
        }
    }

    /// The better one of two that are drawn among a rank; `nil` when the rank is empty.
    private func drawTwo(
        _ rank: Rank, _ now: UInt64, _ random: UInt64, _ allows: (Key) -> Bool
    ) -> Int? {
        var count = 0
        var only: Int?
        for index in members.indices
        where members[index].serves(now, from: rank) && allows(members[index].key) {
            only = index
            count += 1
        }
        guard count > 1 else { return only }
        let first = Int(random & 0xFFFF_FFFF) % count
        let second = (first + 1 + Int(random >> 32) % (count - 1)) % count
        var seen = 0
        var drawn: Int?
        for index in members.indices
        where members[index].serves(now, from: rank) && allows(members[index].key) {
            defer { seen += 1 }
            guard seen == first || seen == second else { continue }
            guard let other = drawn else {
                drawn = index
                continue
            }
            let costs = (
                members[other].load.cost(now: now), members[index].load.cost(now: now)
            )
            if costs.0 == costs.1 { return random & 1 == 0 ? index : other }
            return costs.1 < costs.0 ? index : other
        }
        return drawn
    }

    private mutating func choose(
        _ index: Int, _ permit: CircuitBreaker.Permit?, _ now: UInt64
    ) -> Choice {
        members[index].load.requestStarted()
        return Choice(
            key: members[index].key, startedNanoseconds: now, member: members[index].id,
            permit: permit)
    }

    // MARK: Outcomes

    /// - Parameter latencyNanoseconds: to the answer's head; `nil` when there was none.
    /// - Parameter random: any 64 bits.
    package mutating func ended(
        _ choice: Choice, _ outcome: CircuitBreaker.Outcome, latencyNanoseconds: UInt64?,
        nowNanoseconds now: UInt64, random: UInt64
    ) {
        // An endpoint that is gone meanwhile takes what was known of it along.
        guard let index = members.firstIndex(where: { $0.id == choice.member }) else { return }
        let elapsed = now &- min(choice.startedNanoseconds, now)
        let judged = judge(outcome, elapsed, members[index].load.average(now: now))
        var sample = latencyNanoseconds
        switch judged {
        case .failure(.rateLimited, _): sample = nil
        case .failure(let failure, _):
            // How long a caller waited would make the next one look impatient.
            let took = outcome == .callerTimedOut ? 0 : elapsed
            sample = slowness(of: index, took, now)
            if failure == .connect { members[index].load.connectFailed(now: now, random: random) }
        case .success: members[index].load.connectSucceeded()
        case .unknown, .callerTimedOut: sample = nil
        }
        if case .failure(let failure, _) = judged { members[index].failures[failure.rawValue] += 1 }
        members[index].load.requestEnded(latencyNanoseconds: sample, now: now)
        if let permit = choice.permit {
            members[index].breaker.ended(permit, judged, nowNanoseconds: now, random: random)
        }
    }

    /// An impatient caller says nothing of an endpoint, or its deadlines would open circuits for
    /// everybody; one that waited for several times of what the endpoint usually takes does.
    private func judge(
        _ outcome: CircuitBreaker.Outcome, _ elapsed: UInt64, _ average: Double
    ) -> CircuitBreaker.Outcome {
        guard outcome == .callerTimedOut else { return outcome }
        let isLate = Double(elapsed) >= max(4 * average, EndpointLoad.unknownNanoseconds)
        return isLate ? .failure(.timeout, retryAfterNanoseconds: nil) : .unknown
    }

    /// A failure counts as an answer twice as slow as those of the others, or whoever fails at once
    /// would look like the fastest of all. Not slower than that: it is the breaker that takes an
    /// endpoint out, and it does so sooner if the endpoint is asked now and then.
    private func slowness(of index: Int, _ elapsed: UInt64, _ now: UInt64) -> UInt64 {
        guard members.count > 1 else { return elapsed }
        var sum = 0.0
        for other in members.indices where other != index {
            sum += members[other].load.average(now: now)
        }
        return max(elapsed, UInt64(min(2 * sum / Double(members.count - 1), 600e9)))
    }

    // MARK: What is known

    package func statuses(nowNanoseconds now: UInt64) -> [Status] {
        members.map { member in
            Status(
                key: member.key, breaker: member.breaker.position,
                openedBy: member.breaker.isClosed ? nil : member.breaker.openedBy,
                isHealthy: member.isHealthy, isAvoided: member.load.isAvoided(now: now),
                outstanding: member.load.outstanding,
                averageNanoseconds: UInt64(member.load.average(now: now)),
                failures: member.failures)
        }
    }

    /// What opened the circuits, where all of them are open.
    package var openedBy: [CircuitBreaker.Failure] {
        guard !members.contains(where: { $0.breaker.isClosed }) else { return [] }
        var kinds: [CircuitBreaker.Failure] = []
        for kind in members.compactMap(\.breaker.openedBy) where !kinds.contains(kind) {
            kinds.append(kind)
        }
        return kinds
    }
}
