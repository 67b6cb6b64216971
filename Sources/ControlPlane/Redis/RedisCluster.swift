import Synchronization

/// The primaries of a cluster: a connection to each, the map of the slots, and the way of a command
/// whose slot has moved.
final class RedisCluster: Sendable {
    private struct State {
        var owners = [RedisURL.Address?](repeating: nil, count: RedisSlots.count)
        var connections: [RedisURL.Address: RedisConnection] = [:]
        var mappedNanoseconds: UInt64 = 0
        var isMapping = false
        var isClosed = false
    }

    private let seeds: [RedisURL.Address]
    /// How to get into a node; its address is what the cluster says.
    private let endpoint: RedisEndpoint
    private let state = Mutex(State())

    init(seeds: [RedisURL.Address], endpoint: RedisEndpoint) {
        self.seeds = seeds
        self.endpoint = endpoint
    }

    func close() {
        let connections = state.withLock { state in
            state.isClosed = true
            defer { state.connections = [:] }
            return Array(state.connections.values)
        }
        for connection in connections { connection.close() }
    }

    // MARK: Nodes

    /// Every node that is known, those of the URL last.
    var knownNodes: [RedisEndpoint] {
        let known = state.withLock { Set($0.owners.compactMap { $0 }) }
        return
            (known.sorted { $0.description < $1.description }
            + seeds.filter { !known.contains($0) }).map(endpoint(at:))
    }

    /// Those that serve slots; the map is asked for where there is none yet.
    func primaries(deadlineNanoseconds: UInt64) async -> [RedisURL.Address] {
        for _ in 0..<StoreLimits.redisRedirectsMax {
            // What single redirections have taught is not the whole map.
            let known = state.withLock { state in
                state.mappedNanoseconds > 0 ? Set(state.owners.compactMap { $0 }) : []
            }
            if !known.isEmpty { return known.sorted { $0.description < $1.description } }
            guard await lookAgain(deadlineNanoseconds: deadlineNanoseconds) else { break }
        }
        return []
    }

    /// Why a node of the map has no connection, for people.
    var problem: String? {
        let nodes = state.withLock { state in
            Set(state.owners.compactMap { $0 }).map { ($0, state.connections[$0]) }
        }
        guard !nodes.isEmpty else { return "the cluster's slots are not known yet" }
        for (address, connection) in nodes {
            if let connection, let problem = connection.problem { return "\(address): \(problem)" }
        }
        return nil
    }

    private func endpoint(at address: RedisURL.Address) -> RedisEndpoint {
        var node = endpoint
        node.address = address
        return node
    }

    /// `nil` after the end.
    private func connection(to address: RedisURL.Address) -> RedisConnection? {
        state.withLock { state in
            if let known = state.connections[address] { return known }
            guard !state.isClosed else { return nil }
            let fresh = RedisConnection(
                FixedServer(endpoint: endpoint(at: address)), rule: .handBack)
            fresh.start()
            state.connections[address] = fresh
            return fresh
        }
    }

    // MARK: Commands

    /// Sends a command to its slot's node at once; what became of it there may need `follow`.
    func submit(
        _ request: RedisRequest,
        completion: @escaping @Sendable (RedisURL.Address, Result<RedisAnswer, RedisError>) -> Void
    ) {
        let address = owner(of: request) ?? seeds[0]
        submit(request, to: address) { completion(address, $0) }
    }

    func submit(
        _ request: RedisRequest, to address: RedisURL.Address,
        completion: @escaping @Sendable (Result<RedisAnswer, RedisError>) -> Void
    ) {
        guard let connection = connection(to: address) else { return completion(.failure(.closed)) }
        connection.submit(request, completion: completion)
    }

    private func owner(of request: RedisRequest) -> RedisURL.Address? {
        // What any node serves goes to one that is always the same: its clock decides periods.
        let key = RedisSlots.routingKey(of: request.arguments) ?? StoreKeys.mesh
        return state.withLock { $0.owners[RedisSlots.slot(of: key)] }
    }

    /// Goes where a node's answer sends the command, until it has an answer of its own or its
    /// time is over.
    func follow(
        _ request: RedisRequest, _ first: Result<RedisAnswer, RedisError>,
        from node: RedisURL.Address
    ) async -> (node: RedisURL.Address, result: Result<RedisAnswer, RedisError>) {
        var result = first
        var node = node
        var redirections = 0
        while let step = step(request, result, asked: node) {
            var next = request
            redirections += 1
            switch step {
            case .moved(let slot, let address) where redirections < StoreLimits.redisRedirectsMax:
                state.withLock { $0.owners[slot] = address }
                node = address
                Task { await self.refresh(request.deadlineNanoseconds) }
            case .ask(let address) where redirections < StoreLimits.redisRedirectsMax:
                next.isAsking = true
                node = address
            case .moved, .ask, .again:
                redirections = 0
                guard await lookAgain(deadlineNanoseconds: request.deadlineNanoseconds) else {
                    return (node, result)
                }
                node = owner(of: request) ?? seeds[0]
            }
            result = await send(next, to: node)
        }
        return (node, result)
    }

    /// `nil`: the result stands.
    private func step(
        _ request: RedisRequest, _ result: Result<RedisAnswer, RedisError>,
        asked: RedisURL.Address
    ) -> RedisRedirection? {
        guard case .failure(let error) = result, request.generation == nil else { return nil }
        switch error {
        case .server(let text): return RedisRedirection(text, asked: asked)
        case .connectionLost(let maybeExecuted):
            return request.isIdempotent || !maybeExecuted ? .again : nil
        // The node has left the map in between.
        case .closed: return state.withLock { $0.isClosed } ? nil : .again
        case .timeout:
            // The node may have a successor already; the next command should find it.
            let deadline = MonotonicClock.nowNanoseconds + StoreLimits.redisCommandNanoseconds
            Task { await self.refresh(deadline) }
            return nil
        case .queueFull, .unexpectedReply, .invalidURL: return nil
        }
    }

    private func send(
        _ request: RedisRequest, to address: RedisURL.Address
    ) async -> Result<RedisAnswer, RedisError> {
        await withCheckedContinuation { continuation in
            submit(request, to: address) { continuation.resume(returning: $0) }
        }
    }

    /// `false`: the time is over.
    private func pause(_ deadlineNanoseconds: UInt64) async -> Bool {
        let wait = UInt64.random(in: StoreLimits.redisAgainNanoseconds)
        guard MonotonicClock.nowNanoseconds + wait < deadlineNanoseconds else { return false }
        return (try? await Task.sleep(for: .nanoseconds(Int64(wait)))) != nil
    }

    // MARK: The map

    /// After a moment, asks for the map anew. `false`: the time is over.
    func lookAgain(deadlineNanoseconds: UInt64) async -> Bool {
        guard await pause(deadlineNanoseconds) else { return false }
        return await refresh(deadlineNanoseconds)
    }

    /// Asks the nodes in turn for the map, unless somebody is doing that or has just done it.
    /// `false`: the time is over.
    @discardableResult
    private func refresh(_ deadlineNanoseconds: UInt64) async -> Bool {
        let isMine = state.withLock { state in
            let age = MonotonicClock.nowNanoseconds &- state.mappedNanoseconds
            guard !state.isMapping, age > StoreLimits.redisMapFreshNanoseconds else { return false }
            state.isMapping = true
            return true
        }
        guard isMine else { return MonotonicClock.nowNanoseconds < deadlineNanoseconds }
        defer { state.withLock { $0.isMapping = false } }
        for node in knownNodes.map(\.address).shuffled() {
            let request = RedisRequest(
                arguments: ["CLUSTER", "SLOTS"], isIdempotent: true,
                deadlineNanoseconds: deadlineNanoseconds)
            guard case .success(let answer) = await send(request, to: node),
                let owners = RedisSlots.owners(answer.reply, asked: node)
            else { continue }
            adopt(owners)
            break
        }
        return MonotonicClock.nowNanoseconds < deadlineNanoseconds
    }

    /// Connections to nodes that serve nothing any more end; what waits there is handed back.
    private func adopt(_ owners: [RedisURL.Address?]) {
        let ended = state.withLock { state in
            state.owners = owners
            state.mappedNanoseconds = MonotonicClock.nowNanoseconds
            let kept = Set(owners.compactMap { $0 }).union(seeds)
            let ended = state.connections.filter { !kept.contains($0.key) }
            for address in ended.keys { state.connections[address] = nil }
            return Array(ended.values)
        }
        for connection in ended { connection.close() }
    }
}
