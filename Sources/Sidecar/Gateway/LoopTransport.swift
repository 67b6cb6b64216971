import SidecarCore
import WeirCore
import WeirLedger

/// Calls over the connection pools of one worker. A delegation names the one sidecar that may take
/// it, so each endpoint is an upstream of its own, and choosing among them is the caller's.
package struct LoopTransport: AgentTransport {
    private final class Targets {
        let worker: Worker
        let client: HTTPClient
        private var byIncarnation: [Incarnation: (address: String, target: UpstreamTarget)] = [:]
        private var generation: UInt64 = 0

        init(worker: Worker) {
            self.worker = worker
            client = HTTPClient(worker: worker)
        }

        /// `nil` when the address is none.
        func target(for endpoint: AgentEndpoint, agent: String) -> UpstreamTarget? {
            if let known = byIncarnation[endpoint.incarnation], known.address == endpoint.address {
                return known.target
            }
            guard let address = SocketAddress(endpoint.address) else { return nil }
            var timeouts = worker.timeouts
            timeouts.connectNanoseconds = GatewayLimits.connectNanoseconds
            // The call's own deadline and the sidecar's timeouts are what bounds the rest.
            timeouts.firstByteNanoseconds = worker.timeouts.totalNanoseconds
            let target = UpstreamTarget(
                name: agent, worker: worker, addresses: [address], timeouts: timeouts)
            byIncarnation[endpoint.incarnation] = (endpoint.address, target)
            return target
        }

        /// Lets go of sidecars that are in no snapshot any more.
        func keep(_ snapshot: GatewaySnapshot) {
            guard snapshot.generation != generation else { return }
            generation = snapshot.generation
            let current = Set(snapshot.endpoints.values.joined().map(\.incarnation))
            for (incarnation, known) in byIncarnation where !current.contains(incarnation) {
                known.target.closeIdleConnections()
                byIncarnation[incarnation] = nil
            }
        }
    }

    private let bound: LoopBound<Targets>

    package init(worker: Worker) {
        bound = LoopBound(Targets(worker: worker), loop: worker.loop)
    }

    package func keep(_ snapshot: GatewaySnapshot) { bound.value.keep(snapshot) }

    package func open(
        _ call: AgentCall, to endpoint: AgentEndpoint
    ) async throws(AgentCallError) -> any AgentAnswerStream {
        let targets = bound.value
        guard let target = targets.target(for: endpoint, agent: call.agent) else {
            throw AgentCallError(reason: .noEndpoint, wasSent: false)
        }
        let request = ClientRequest(
            method: call.method, target: call.path, host: endpoint.address,
            fields: call.headers.map { ($0.name, $0.value) }, body: call.body)
        let loop = targets.worker.loop
        let now = loop.nowNanoseconds
        guard call.deadlineNanoseconds > now else {
            throw AgentCallError(reason: .deadline, wasSent: false)
        }
        do throws(ClientError) {
            let response = try await targets.client.open(
                request, to: target, deadlineNanoseconds: call.deadlineNanoseconds - now)
            return LoopAnswerStream(bound: LoopBound(response, loop: loop))
        } catch {
            throw AgentCallError(error)
        }
    }
}

private struct LoopAnswerStream: AgentAnswerStream {
    let bound: LoopBound<ClientStreamingResponse>

    var status: Int { bound.value.response.status }

    func field(_ name: String) -> String? { bound.value.response.field(name) }

    func next() async throws(AgentCallError) -> [UInt8]? {
        do throws(ClientError) {
            return try await bound.value.next()
        } catch {
            throw AgentCallError(error)
        }
    }

    func trailer(_ name: String) -> String? { bound.value.trailer(name) }

    func cancel() { bound.value.cancel() }
}

extension AgentCallError {
    fileprivate init(_ error: ClientError) {
        self.init(
            reason: Task.isCancelled ? .cancelled : error.reason, wasSent: error.upstreamTouched)
    }
}

package struct LoopClock: GatewayClock {
    private let loop: EventLoop

    package init(loop: EventLoop) { self.loop = loop }

    package var nowNanoseconds: UInt64 { loop.nowNanoseconds }

    package var now: UnixTime { SidecarLedger.wallTime() }

    package func sleep(untilNanoseconds deadline: UInt64) async throws {
        let now = loop.nowNanoseconds
        try await loop.sleep(nanoseconds: deadline > now ? deadline - now : 0)
    }
}
