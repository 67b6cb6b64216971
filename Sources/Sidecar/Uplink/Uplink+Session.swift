import SidecarCore
import WeirCore
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

// Joining, and the watch of the policy.

extension Uplink {
    /// For the whole life of the process: while there is a connection, joined; while joined,
    /// watching.
    func keepSession() async {
        while !isStopping {
            guard client?.isOpen == true else {
                await sessionSignal.wait(atMostNanoseconds: UplinkLimits.reportNanoseconds)
                continue
            }
            if identity == nil { await join() }
            if identity != nil { await watch() }
            guard !isStopping, client?.isOpen == true else { continue }
            // The watch ended or the join was refused: at once would be a busy loop.
            await sessionSignal.wait(
                atMostNanoseconds: identity == nil
                    ? UplinkLimits.joinPauseNanoseconds : UplinkLimits.retryNanoseconds)
        }
    }

    private func join() async {
        let request = JoinRequest(
            credential: configuration.joinToken, role: configuration.role,
            agent: configuration.agent, agentVersion: configuration.agentVersion,
            endpoint: configuration.endpoint, instance: configuration.instance,
            predecessor: hooks.predecessor())
        do {
            let response = try await post(MeshPath.join, request, answer: JoinResponse.self)
            guard response.protocolVersion == MeshLimits.protocolVersion else {
                throw MeshError.notUnderstood("protocol version \(response.protocolVersion)")
            }
            ledger = try hooks.joined(response, false)
            identity = response
            var next = LastGood(
                role: configuration.role, agent: configuration.agent, join: response)
            next.projection = lastGood?.projection
            next.projectionHash = lastGood?.projectionHash
            keep(next)
            adoptReplicas(response.replicas)
            publish {
                $0.incarnation = response.incarnation
                $0.lastError = nil
            }
            hooks.log.info("joined", ("incarnation", response.incarnation.description))
            leaseSignal.notify()
            reportSignal.notify()
            recordSignal.notify()
        } catch {
            let reason = describe(error)
            publish { $0.lastError = "join: \(reason)" }
            hooks.log.error("the join failed", ("error", reason))
        }
    }

    /// The configured addresses stay: they are what the operator said.
    private func adoptReplicas(_ named: [String]) {
        let found = named.prefix(UplinkLimits.replicasMax).compactMap { name in
            SocketAddress(name).map { Replica(authority: name, address: $0) }
        }
        let new = found.filter { !configuration.replicas.contains($0) }
        client?.replicasChanged(configuration.replicas + new)
    }

    /// Returns when the stream ends, for whatever reason.
    private func watch() async {
        var path = MeshPath.policy + "?watch"
        if let applied = gate.applied {
            path += "&version=\(applied.version)&hash=\(applied.projectionHash)"
        }
        guard let client else { return }
        // What was said between two watches is lost.
        subjectsChanged([])
        var reader = LineReader()
        do {
            let answer = try await client.stream(
                head("GET", path, contentType: nil),
                idleNanoseconds: UplinkLimits.watchIdleNanoseconds
            ) { [weak self] bytes in
                guard let lines = reader.lines(adding: bytes), let self else { return false }
                return self.assumeIsolated { uplink in
                    lines.allSatisfy { uplink.lineReceived($0) }
                }
            }
            if answer.status == 401 { identity = nil }
            hooks.log.info("the watch ended", ("status", String(answer.status)))
        } catch {
            hooks.log.info("the watch broke", ("error", describe(error)))
        }
    }

    /// False ends the watch: a control plane that is not understood is asked again.
    private func lineReceived(_ line: [UInt8]) -> Bool {
        publish { $0.heardNanoseconds = loop.nowNanoseconds }
        let event: PolicyEvent
        do {
            event = try JSON.decode(PolicyEvent.self, from: line)
        } catch {
            hooks.log.error(
                "a line of the watch is not understood", ("error", describe(error)))
            return false
        }
        switch event {
        case .projection(let hash, let projection):
            let ack = apply(hash: hash, projection)
            loop.spawn { await self.acknowledge(ack) }
        case .bookmark: break
        case .recall(let leases):
            ledger?.recall(leases)
        case .subjects(let users): subjectsChanged(users)
        }
        return true
    }

    @discardableResult
    func apply(hash: String, _ projection: Projection) -> PolicyAck {
        var ack = PolicyAck(
            version: projection.version, projectionHash: hash, applied: true, problems: [])
        let held = gate.applied?.version
        switch gate.decide(hash: hash, projection) {
        case .unchanged: break
        case .apply(let policy):
            publish {
                $0.policyVersion = policy.version
                $0.projectionHash = hash
                $0.appliedNanoseconds = loop.nowNanoseconds
                $0.policyProblems = []
            }
            hooks.policyApplied(policy)
            // Bindings have the limits of the policy that they were made under.
            if policy.version != held { subjectsChanged([]) }
            hooks.log.info("policy in force", ("version", policy.version.description))
            if var next = lastGood, next.projectionHash != hash {
                next.projection = projection
                next.projectionHash = hash
                keep(next)
            }
        case .refuse(let problems, let isAlarm):
            ack.applied = false
            ack.problems = problems
            publish { $0.policyProblems = problems }
            logRefusal(projection.version, problems, isAlarm: isAlarm)
        }
        return ack
    }

    private func logRefusal(_ version: PolicyVersion, _ problems: [Problem], isAlarm: Bool) {
        let text = problems.map(\.description).joined(separator: "; ")
        if isAlarm {
            hooks.log.error(
                "policy contradicts itself", ("version", version.description), ("problems", text))
        } else {
            hooks.log.warning(
                "policy refused", ("version", version.description), ("problems", text))
        }
    }

    private func keep(_ next: LastGood) {
        lastGood = next
        do {
            try file.write(next)
        } catch {
            // Served from memory; a restart without the control plane would not find it.
            hooks.log.error("the last good snapshot cannot be kept", ("error", describe(error)))
        }
    }

    /// Until the control plane has it, or a later one is on its way.
    private func acknowledge(_ ack: PolicyAck) async {
        while !isStopping, isReady {
            do {
                _ = try await send(
                    "POST", MeshPath.ack, try JSON.encode(ack), contentType: "application/json")
                return
            } catch is MeshRefusal {
                return
            } catch {
                await pause(nanoseconds: UplinkLimits.retryNanoseconds)
            }
        }
    }
}
