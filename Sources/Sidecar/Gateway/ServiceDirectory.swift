import SidecarCore
import Synchronization
import WeirLedger
import WeirMeshProtocol

/// Which sidecars are behind the addresses that the environment fixes for an agent
/// (`FINBERT_SERVICE_URL` and its like): behind port mappings and on other networks only those can
/// be reached, and not what the sidecars announced. A delegation is for one sidecar, so each
/// address is asked who answers there (`SidecarIdentity`), again and again, on the control loop.
package final class ServiceDirectory: Sendable {
    static let askNanoseconds: UInt64 = 1_000_000_000

    /// One agent's addresses and who was found at them.
    struct Service: Hashable, Sendable {
        var addresses: [SocketAddress]
        var found: [SocketAddress: Incarnation] = [:]

        init(_ addresses: [SocketAddress]) { self.addresses = addresses }
    }

    private let services: Mutex<[String: Service]>
    private let pools: LoopBound<Pools>
    private let loop: EventLoop

    /// On the loop.
    private final class Pools {
        let worker: Worker
        var targets: [SocketAddress: UpstreamTarget] = [:]
        init(_ worker: Worker) { self.worker = worker }

        func target(_ address: SocketAddress) -> UpstreamTarget {
            if let known = targets[address] { return known }
            var timeouts = Timeouts()
            timeouts.connectNanoseconds = GatewayLimits.connectNanoseconds
            // A connection that stays would show one sidecar for ever where another one has taken
            // its address.
            timeouts.upstreamIdleNanoseconds = 1
            let target = UpstreamTarget(
                name: "directory", worker: worker, addresses: [address], timeouts: timeouts)
            targets[address] = target
            return target
        }

        func keep(_ addresses: Set<SocketAddress>) {
            for (address, target) in targets where !addresses.contains(address) {
                target.closeIdleConnections()
                targets[address] = nil
            }
        }
    }

    package init(_ services: [String: [SocketAddress]], loop: EventLoop) {
        self.services = Mutex(services.mapValues { Service($0) })
        self.loop = loop
        pools = LoopBound(Pools(Worker(loop: loop)), loop: loop)
    }

    /// The name of an agent's service means other addresses now.
    package func update(_ agent: String, addresses: [SocketAddress]) {
        services.withLock { services in
            guard var service = services[agent] else { return }
            service.addresses = addresses
            service.found = service.found.filter { addresses.contains($0.key) }
            services[agent] = service
        }
    }

    /// Asks until the task is cancelled; `changed` is called on the loop when somebody was found.
    package func start(_ changed: @escaping @Sendable () -> Void) -> Task<Void, Never>? {
        guard services.withLock({ !$0.isEmpty }) else { return nil }
        return loop.spawn { [self] in
            while !Task.isCancelled {
                let before = services.withLock { $0 }
                await askAll(before)
                if services.withLock({ $0 }) != before { changed() }
                do {
                    try await loop.sleep(nanoseconds: Self.askNanoseconds)
                } catch { return }
            }
        }
    }

    private func askAll(_ services: [String: Service]) async {
        pools.value.keep(Set(services.values.flatMap(\.addresses)))
        await withTaskGroup(of: Void.self) { group in
            for (agent, service) in services {
                for address in service.addresses {
                    group.addTask { await self.ask(agent, address) }
                }
            }
        }
    }

    /// Who does not answer stays who it was: the balancing passes over it meanwhile.
    private func ask(_ agent: String, _ address: SocketAddress) async {
        let pools = self.pools.value
        do {
            let answer = try await HTTPClient(worker: pools.worker).send(
                ClientRequest(
                    method: SidecarIdentity.method, target: SidecarIdentity.target,
                    responseBytesMax: 4_096),
                to: pools.target(address), deadlineNanoseconds: Self.askNanoseconds)
            guard let text = answer.field(SidecarIdentity.fieldName), let number = Int64(text)
            else { return }
            services.withLock { services in
                guard services[agent]?.addresses.contains(address) == true else { return }
                services[agent]?.found[address] = Incarnation(number)
            }
        } catch {}
    }

    // MARK: The rule

    /// The sidecars as this gateway reaches them.
    package func place(_ announced: [Projection.Endpoint]) -> [Projection.Endpoint] {
        Self.place(announced, services.withLock { $0 })
    }

    /// A sidecar that was found at an address is called there, and one of a fixed agent that was
    /// found nowhere is not called. One address and one sidecar belong together unasked.
    static func place(
        _ announced: [Projection.Endpoint], _ services: [String: Service]
    ) -> [Projection.Endpoint] {
        announced.compactMap { endpoint in
            guard let service = services[endpoint.agent] else { return endpoint }
            var placed = endpoint
            let address = service.addresses.first { service.found[$0] == endpoint.incarnation }
            if let address {
                placed.address = address.description
                return placed
            }
            let isAlone = announced.count { $0.agent == endpoint.agent } == 1
            guard isAlone, service.addresses.count == 1, let only = service.addresses.first else {
                return nil
            }
            placed.address = only.description
            return placed
        }
    }
}
