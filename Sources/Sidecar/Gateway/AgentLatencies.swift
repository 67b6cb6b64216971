import Synchronization
import WeirPolicy

/// How long agents took to serve a step, as this gateway saw it: an exponentially weighted mean of
/// the successful calls of all users, for those who asked for the quickest agent. One for the
/// process.
package final class AgentLatencies: Sendable {
    /// A new value has this share; so the mean follows about the last ten calls.
    private static let share: UInt64 = 5

    private let means = Mutex<[String: UInt64]>([:])

    package init() {}

    /// Nanoseconds by agent.
    package var all: [String: UInt64] { means.withLock { $0 } }

    /// `agent`: a name of the policy, so their number is bounded by those that policies ever had.
    package func succeeded(_ agent: AgentPolicy, nanoseconds: UInt64) {
        means.withLock { means in
            guard let mean = means[agent.name] else {
                means[agent.name] = nanoseconds
                return
            }
            means[agent.name] = mean - mean / Self.share + nanoseconds / Self.share
        }
    }
}
