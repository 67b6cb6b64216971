import ControlPlaneStore
import NIOCore
import Synchronization
import WeirCore
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

/// Whom a projection is for.
package enum Audience: Hashable, Sendable {
    case gateway
    case agent(String)
}

/// A policy as it is active: what the store has, read and validated.
package struct ActivePolicy: Sendable {
    package var version: PolicyVersion
    package var documents: [JSONValue]
    package var policy: Policy

    package init(version: PolicyVersion, documents: [JSONValue], policy: Policy) {
        self.version = version
        self.documents = documents
        self.policy = policy
    }
}

/// The policy that this replica pushes, and everybody who watches it. Nothing is queued for a
/// watcher but the fact that there is something to look at: it then takes the newest projection, so
/// that a slow reader costs one projection however much has changed meanwhile.
package final class PolicyHub: Sendable {
    /// Why a watcher is woken.
    enum Wake: Sendable { case changed, tick }

    struct Watch: Sendable {
        let id: UInt64
        let wakes: AsyncStream<Wake>
    }

    private struct Watcher {
        var incarnation: Incarnation
        var isGateway: Bool
        var wakes: AsyncStream<Wake>.Continuation
        /// Leases that others wait for, until the watcher takes them along.
        var recalls: [LeaseID] = []
        /// Users to ask about again, in the same way.
        var subjects: [String] = []
        /// Anybody may have changed.
        var hasMissedSubjects = false
    }

    /// What one watcher is told besides the policy.
    struct Notices: Sendable {
        var recalls: [LeaseID] = []
        var subjects: [String] = []
        var hasMissedSubjects = false
    }

    private struct State {
        var active: ActivePolicy?
        var endpoints: [Projection.Endpoint] = []
        /// What each audience gets of these two, made when first asked for.
        var lines: [Audience: PolicyLine] = [:]
        var watchers: [UInt64: Watcher] = [:]
        var nextID: UInt64 = 0
        var isClosed = false
    }

    private let state = Mutex(State())
    private let watchersMax: Int

    package init(watchersMax: Int = ServerLimits.watchersMax) { self.watchersMax = watchersMax }

    package var active: ActivePolicy? { state.withLock { $0.active } }
    package var watcherCount: Int { state.withLock { $0.watchers.count } }
    var hasRoom: Bool {
        state.withLock { !$0.isClosed && $0.watchers.count < watchersMax }
    }

    /// Takes what the store has now. An older version than the one held is ignored: answers of two
    /// readings may arrive in either order, and a version never decreases.
    package func update(_ active: ActivePolicy?, endpoints: [Projection.Endpoint]) {
        let endpoints = endpoints.sorted {
            ($0.agent, $0.incarnation) < ($1.agent, $1.incarnation)
        }
        state.withLock { state in
            let isNewer = active.map { $0.version.isNewer(than: state.active?.version) } ?? false
            guard isNewer || endpoints != state.endpoints else { return }
            if isNewer { state.active = active }
            state.endpoints = endpoints
            state.lines = [:]
            for watcher in state.watchers.values { watcher.wakes.yield(.changed) }
        }
    }

    /// Wakes every watcher to send a bookmark.
    func tick() {
        state.withLock { for watcher in $0.watchers.values { watcher.wakes.yield(.tick) } }
    }

    /// What this audience is to run; `nil` while there is no policy.
    func line(for audience: Audience) -> PolicyLine? {
        state.withLock { state in
            guard let active = state.active else { return nil }
            if let line = state.lines[audience] { return line }
            let line = PolicyLine(active, endpoints: state.endpoints, for: audience)
            state.lines[audience] = line
            return line
        }
    }

    var bookmark: ByteBuffer {
        PolicyLine.bookmark(
            active?.version ?? PolicyVersion(epoch: 0, number: 0, hash: ""))
    }

    /// `nil` when there are too many watchers or the hub is closed.
    func watch(_ incarnation: Incarnation, isGateway: Bool = false) -> Watch? {
        // One wake is enough: the newest projection is taken when it is looked at.
        let (wakes, continuation) = AsyncStream.makeStream(
            of: Wake.self, bufferingPolicy: .bufferingNewest(1))
        let id: UInt64? = state.withLock { state in
            guard !state.isClosed, state.watchers.count < watchersMax else { return nil }
            state.nextID += 1
            state.watchers[state.nextID] = Watcher(
                incarnation: incarnation, isGateway: isGateway, wakes: continuation)
            return state.nextID
        }
        return id.map { Watch(id: $0, wakes: wakes) }
    }

    func end(_ watch: Watch) {
        let watcher = state.withLock { $0.watchers.removeValue(forKey: watch.id) }
        watcher?.wakes.finish()
    }

    /// Leases that are wanted back, for their holder if it watches here. One that is not told is
    /// told in the answer to its next report.
    func recall(_ recall: LeaseRecall) {
        state.withLock { state in
            for (id, watcher) in state.watchers where watcher.incarnation == recall.holder {
                let room = MeshLimits.leasesPerMessageMax - watcher.recalls.count
                let new = recall.leases.filter { !watcher.recalls.contains($0) }.prefix(room)
                state.watchers[id]?.recalls += new
                watcher.wakes.yield(.changed)
            }
        }
    }

    /// Tells every gateway to ask about a user again; about everybody, where too many have changed
    /// at once.
    func subjectChanged(_ user: String) {
        state.withLock { state in
            for (id, watcher) in state.watchers
            where watcher.isGateway && !watcher.subjects.contains(user) {
                if watcher.subjects.count < MeshLimits.subjectsPerLineMax {
                    state.watchers[id]?.subjects.append(user)
                } else {
                    state.watchers[id]?.hasMissedSubjects = true
                }
                watcher.wakes.yield(.changed)
            }
        }
    }

    /// Words of changed users may have been lost: every gateway asks about each again.
    func anySubjectMayHaveChanged() {
        state.withLock { state in
            for (id, watcher) in state.watchers where watcher.isGateway {
                state.watchers[id]?.hasMissedSubjects = true
                watcher.wakes.yield(.changed)
            }
        }
    }

    func takeNotices(_ watch: Watch) -> Notices {
        state.withLock { state in
            guard let watcher = state.watchers[watch.id] else { return Notices() }
            state.watchers[watch.id]?.recalls = []
            state.watchers[watch.id]?.subjects = []
            state.watchers[watch.id]?.hasMissedSubjects = false
            return Notices(
                recalls: watcher.recalls, subjects: watcher.subjects,
                hasMissedSubjects: watcher.hasMissedSubjects)
        }
    }

    /// Ends every watch, so that the listener can stop.
    func close() {
        let watchers = state.withLock { state in
            state.isClosed = true
            defer { state.watchers = [:] }
            return state.watchers
        }
        for watcher in watchers.values { watcher.wakes.finish() }
    }
}

extension PolicyVersion {
    /// By epoch, then number.
    func isNewer(than other: PolicyVersion?) -> Bool {
        guard let other else { return true }
        return (epoch, number) > (other.epoch, other.number)
    }
}
