import SidecarCore
import Synchronization
import WeirCore
import WeirCrypto
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

/// The link of one sidecar to the control plane: it joins, watches the policy, asks for leases,
/// reports, ships records and looks up subjects. An actor that runs on the control loop, so that
/// its code is plain `async` code and needs no lock.
///
/// Everything here goes on without a connection: what has to be said waits in the ledger and its
/// journal, which say it again when asked, so nothing is queued here.
package actor Uplink {
    package nonisolated let loop: EventLoop
    package nonisolated var unownedExecutor: UnownedSerialExecutor {
        loop.asUnownedSerialExecutor()
    }

    let configuration: UplinkConfiguration
    let hooks: UplinkHooks
    let file: LastGoodFile
    var client: MeshClient?
    var identity: JoinResponse?
    var ledger: (any LedgerLink)?
    var gate: PolicyGate
    var lastGood: LastGood?
    var isStopping = false

    var subjects = SubjectCache()
    var lookups: [SubjectRequest: [CheckedContinuation<SubjectOutcome, Never>]] = [:]
    /// Counts what the control plane said about changed subjects, so that a lookup that was under
    /// way then is not remembered.
    var subjectChanges: UInt64 = 0
    /// Messages for users' own requests under way.
    var userCalls = 0

    /// One for each task that waits: the session, the leases, the report, the records.
    let sessionSignal: Signal
    let leaseSignal: Signal
    let reportSignal: Signal
    let recordSignal: Signal
    private nonisolated let published = Mutex(UplinkStatus())

    package init(loop: EventLoop, configuration: UplinkConfiguration, hooks: UplinkHooks) {
        self.loop = loop
        self.configuration = configuration
        self.hooks = hooks
        file = LastGoodFile(folder: configuration.dataFolder)
        gate = PolicyGate(read: hooks.readPolicy)
        sessionSignal = Signal(loop: loop)
        leaseSignal = Signal(loop: loop)
        reportSignal = Signal(loop: loop)
        recordSignal = Signal(loop: loop)
    }

    package nonisolated var status: UplinkStatus { published.withLock { $0 } }

    func publish(_ change: (inout UplinkStatus) -> Void) {
        published.withLock { change(&$0) }
    }

    // MARK: Life

    /// Begins with what is on disk, if the journal says that it may, and connects. The loop must
    /// run.
    package func start(mayResume: @Sendable (JoinResponse) -> Bool) {
        restore(mayResume)
        let client = MeshClient(loop: loop, replicas: configuration.replicas)
        client.linkChanged = { [weak self] isOpen in
            self?.assumeIsolated { $0.linkChanged(isOpen) }
        }
        self.client = client
        client.start()
        var tasks: [@Sendable (isolated Uplink) async -> Void] = [
            { await $0.keepSession() }, { await $0.carryLeases() }, { await $0.carryReports() },
            { await $0.shipRecords() },
        ]
        if configuration.role == .gateway { tasks.append { await $0.followState() } }
        for task in tasks { loop.spawn { await task(self) } }
    }

    private func restore(_ mayResume: (JoinResponse) -> Bool) {
        do {
            guard let found = try file.read() else { return }
            guard found.role == configuration.role, found.agent == configuration.agent else {
                hooks.log.warning("the last good snapshot is of another agent", ("path", file.path))
                return
            }
            lastGood = found
            if mayResume(found.join) {
                ledger = try hooks.joined(found.join, true)
                identity = found.join
                publish { $0.incarnation = found.join.incarnation }
            }
            guard let projection = found.projection, let hash = found.projectionHash else { return }
            apply(hash: hash, projection)
        } catch {
            hooks.log.error(
                "the last good snapshot cannot be used", ("path", file.path),
                ("error", describe(error)))
        }
    }

    private func linkChanged(_ isOpen: Bool) {
        publish {
            $0.isConnected = isOpen
            if isOpen { $0.heardNanoseconds = loop.nowNanoseconds }
        }
        if isOpen {
            hooks.log.info("control plane connected", ("replica", client?.authority ?? ""))
        } else {
            hooks.log.warning("control plane is away")
        }
        sessionSignal.notify()
        if isOpen { notifyAll() }
    }

    private func notifyAll() {
        leaseSignal.notify()
        reportSignal.notify()
        recordSignal.notify()
    }

    /// The ledger has something to ask for; from any thread.
    package nonisolated func demandsArrived() {
        loop.execute { self.assumeIsolated { $0.leaseSignal.notify() } }
    }

    /// Something that others wait for has changed: finals, health. From any thread.
    package nonisolated func reportSoon() {
        loop.execute { self.assumeIsolated { $0.reportSignal.notify() } }
    }

    /// Says the last word before the process ends: a report, and the records, for as long as it
    /// takes but not past the bound. What is not said stays in the journal.
    package func drain(atMostNanoseconds: UInt64) async {
        let end = loop.nowNanoseconds + atMostNanoseconds
        var isReported = false
        while loop.nowNanoseconds < end, isReady, let ledger {
            if !isReported { isReported = await report(ledger) }
            let blocks = ledger.recordsToShip()
            if isReported && blocks.isEmpty { break }
            if !blocks.isEmpty { _ = await ship(blocks, ledger) }
            await pause(nanoseconds: UplinkLimits.drainTurnNanoseconds)
        }
        isStopping = true
        notifyAll()
        sessionSignal.notify()
        client?.stop()
    }

    /// On the loop whatever task this is: the loop's own `sleep` needs one that prefers the loop.
    func pause(nanoseconds: UInt64) async {
        await withCheckedContinuation { continuation in
            _ = loop.schedule(afterNanoseconds: nanoseconds) { continuation.resume() }
        }
    }

    // MARK: Requests

    /// Joined, and a connection to say it on.
    var isReady: Bool { identity != nil && client?.isOpen == true }

    func post<Answer: Decodable>(
        _ path: String, _ message: some Encodable, answer: Answer.Type,
        timeoutNanoseconds: UInt64 = UplinkLimits.requestNanoseconds
    ) async throws -> Answer {
        let bytes = try JSON.encode(message)
        let body = try await send(
            "POST", path, bytes, contentType: "application/json",
            timeoutNanoseconds: timeoutNanoseconds)
        return try JSON.decode(Answer.self, from: body)
    }

    /// The body of a 2xx answer; anything else is an error. 401 means that the session is not known
    /// any more, and begins a new one; what is wrong with a user never has that status.
    func send(
        _ method: String, _ path: String, _ body: [UInt8], contentType: String?,
        timeoutNanoseconds: UInt64 = UplinkLimits.requestNanoseconds
    ) async throws -> [UInt8] {
        guard let client else { throw MeshError.unavailable }
        let session = identity?.session
        let began = loop.nowNanoseconds
        let answer: MeshAnswer
        do throws(MeshError) {
            answer = try await client.request(
                head(method, path, contentType: contentType), body: body,
                timeoutNanoseconds: timeoutNanoseconds)
        } catch {
            hooks.metrics.ended(path, .failed, nanoseconds: 0)
            throw error
        }
        publish { $0.heardNanoseconds = loop.nowNanoseconds }
        let isSuccess = (200..<300).contains(answer.status)
        hooks.metrics.ended(
            path, isSuccess ? .answered : .refused, nanoseconds: loop.nowNanoseconds - began)
        if isSuccess { return answer.body }
        let refusal =
            (try? JSON.decode(MeshRefusal.self, from: answer.body))
            ?? MeshRefusal(reason: "status \(answer.status)", detail: "")
        if answer.status == 401, let session {
            if identity?.session == session { sessionRefused(refusal) }
            throw MeshError.sessionRefused
        }
        throw refusal
    }

    func head(_ method: String, _ path: String, contentType: String?) -> HTTP2RequestHead {
        var fields: [HTTP2Field] = []
        if let contentType { fields.append(HTTP2Field("content-type", contentType)) }
        if let identity {
            fields.append(
                HTTP2Field("authorization", "Bearer \(identity.session)", isSecret: true))
        }
        return HTTP2RequestHead(
            method: method, authority: client?.authority ?? "", path: path, fields: fields)
    }

    private func sessionRefused(_ refusal: MeshRefusal) {
        hooks.log.warning("the session was refused; joining anew", ("detail", refusal.detail))
        identity = nil
        sessionSignal.notify()
    }

    func describe(_ error: any Error) -> String {
        switch error {
        case let refusal as MeshRefusal:
            ([refusal.reason + ": " + refusal.detail]
                + (refusal.problems ?? []).map(\.description)).joined(separator: " ")
        case let error as SystemError: error.description
        case let error as MeshError: "\(error)"
        default: JSON.problem(from: error).description
        }
    }
}
