import ControlPlaneStore
import Logging
import ServiceLifecycle
import WeirMeshProtocol

/// Where a replica learns what to push.
package protocol PolicySource: Sendable {
    /// The policy that is active if it is newer than `held`, else `nil`.
    func policy(newerThan held: ActivePolicy?) async throws -> ActivePolicy?
    /// Where the agents' sidecars are.
    func endpoints() async throws -> [WeirMeshProtocol.Projection.Endpoint]
    /// Words that something may have changed; may be lost, so nothing depends on them.
    func hints() -> AsyncStream<StoreHint>
}

/// Keeps a hub at what the store has: at once when this replica changed it, on a hint when another
/// one did, and every second in case a hint was lost. Runs until the group shuts down; being
/// without a store is not an end, for the hub still serves what it has.
package actor PolicyWatcher: Service {
    private let source: any PolicySource
    private let hub: PolicyHub
    private let logger: Logger
    private var running: Task<Void, any Error>?
    private var queued: Task<Void, any Error>?
    private var isStoreLost = false

    package init(source: any PolicySource, hub: PolicyHub, logger: Logger) {
        self.source = source
        self.hub = hub
        self.logger = logger
    }

    package func run() async throws {
        await withTaskGroup(of: Void.self) { group in
            group.addTask { await self.poll() }
            group.addTask { await self.followHints() }
            group.addTask { await self.tick() }
            // The first to end is told to by the shutdown, which all of them hear.
            await group.waitForAll()
        }
        hub.close()
    }

    /// Looks at the store and returns when the hub has what it had by the time of the call. Callers
    /// that come while a reading is under way share the next one.
    package func refresh() async throws {
        if let queued { return try await queued.value }
        let previous = running
        let task = Task {
            _ = await previous?.result
            self.queuedBegins()
            try await self.read()
        }
        queued = task
        try await task.value
    }

    private func queuedBegins() {
        running = queued
        queued = nil
    }

    private func read() async throws {
        do {
            let newer = try await source.policy(newerThan: hub.active)
            hub.update(newer, endpoints: try await source.endpoints())
            if isStoreLost { logger.notice("the store is back") }
            isStoreLost = false
        } catch {
            // Once for each outage, not once a second.
            if !isStoreLost {
                logger.error("the policy cannot be read", metadata: ["reason": "\(error)"])
            }
            isStoreLost = true
            throw error
        }
    }

    private func poll() async {
        while await pause(
            milliseconds: ServerLimits.pollMilliseconds, first: { try? await self.refresh() })
        {}
    }

    /// A hint that cannot be followed is made up for by the next poll.
    private func followHints() async {
        for await hint in source.hints().cancelOnGracefulShutdown() {
            switch hint {
            case .anything:
                hub.anySubjectMayHaveChanged()
                try? await refresh()
            case .policyChanged, .endpointsChanged: try? await refresh()
            case .recall(let recall): hub.recall(recall)
            case .subjectChanged(let user): hub.subjectChanged(user)
            }
        }
    }

    private func tick() async {
        // Twice as often as promised, so that one late line is not taken for a dead connection.
        while await pause(
            milliseconds: MeshLimits.bookmarkMilliseconds / 2, first: { self.hub.tick() })
        {}
    }

    /// Does the work and waits; `false` when the group shuts down.
    private func pause(milliseconds: Int64, first work: () async -> Void) async -> Bool {
        await work()
        do {
            return try await cancelWhenGracefulShutdown {
                try await Task.sleep(for: .milliseconds(milliseconds))
                return true
            }
        } catch {
            return false
        }
    }
}
