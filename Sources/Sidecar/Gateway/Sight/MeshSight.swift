import SidecarCore
import Synchronization
import WeirCore
import WeirMeshProtocol
import WeirPolicy

/// What this gateway knows of the agents now, since when, and how available they were in the last
/// minute: the source of `/agents/health`, `/stats` and `system_health_score`. One for the process;
/// any thread may ask.
package final class MeshSight: Sendable {
    /// Of one agent; looks come once a second and with each news.
    static let samplesMax = 256

    package struct Agent: Hashable, Sendable {
        package var view: AgentView
        /// When this gateway first saw the state; looked at once a second.
        package var since: UnixTime
        /// Mean of the share of endpoints that served, over the last minute.
        package var availability: Double
        /// Of the policy.
        package var weight: Int64
    }

    private struct Samples {
        var state: AgentView.State
        var since: UnixTime
        var shares: [(nanoseconds: UInt64, share: Double)] = []
    }

    private struct State {
        var mesh: (state: MeshState, nanoseconds: UInt64)?
        var agents: [Agent] = []
        var samples: [String: Samples] = [:]
    }

    private let state = Mutex(State())

    package init() {}

    package func received(_ mesh: MeshState, nowNanoseconds now: UInt64) {
        state.withLock { $0.mesh = (mesh, now) }
    }

    /// The mesh as the control plane last told it, and how long ago that was.
    package func mesh(nowNanoseconds now: UInt64) -> (state: MeshState, ageNanoseconds: UInt64)? {
        state.withLock { $0.mesh }.map { ($0.state, now - min(now, $0.nanoseconds)) }
    }

    /// Once a second, and when something has changed.
    package func look(_ snapshot: GatewaySnapshot, nowNanoseconds now: UInt64, at time: UnixTime) {
        state.withLock { state in
            let views = AgentView.all(snapshot, state.mesh?.state)
            var samples: [String: Samples] = [:]
            state.agents = views.map { view in
                var own =
                    state.samples[view.name] ?? Samples(state: view.state, since: time)
                if own.state != view.state {
                    own.state = view.state
                    own.since = time
                }
                own.shares.removeAll { now - $0.nanoseconds > CounterWindow.nanoseconds }
                if own.shares.count >= Self.samplesMax { own.shares.removeFirst() }
                own.shares.append((now, view.servingShare))
                samples[view.name] = own
                let sum = own.shares.reduce(0) { $0 + $1.share }
                return Agent(
                    view: view, since: own.since, availability: sum / Double(own.shares.count),
                    weight: snapshot.policy.agents[view.name]?.healthWeight ?? 0)
            }
            state.samples = samples
        }
    }

    /// As of the last look; by name.
    package var agents: [Agent] { state.withLock { $0.agents } }

    /// `system_health_score`: Σ weight × availability ÷ Σ weight, 0 before there is a policy.
    package var score: Double { Self.score(agents) }

    static func score(_ agents: [Agent]) -> Double {
        let weights = agents.reduce(0) { $0 + $1.weight }
        guard weights > 0 else { return 0 }
        return agents.reduce(0) { $0 + Double($1.weight) * $1.availability } / Double(weights)
    }
}
