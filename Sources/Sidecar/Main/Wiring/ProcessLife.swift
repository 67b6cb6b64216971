import Glibc
import SidecarCore
import SidecarUplink
import WeirCore
import WeirPolicy

/// What each form of the process brings: its data plane, and what it says of itself. All calls are
/// made on the control loop.
protocol Role: AnyObject {
    /// May open the data plane at once or when the first policy is there.
    func start() throws
    /// Takes no new requests; `completed` is called on the control loop when the last one has
    /// ended.
    func drain(completed: @escaping () -> Void)
    /// The last word: everything journaled, the threads ended.
    func finish()
    func describe(_ state: inout AdminPages.State)
}

/// From start to exit: the admin listener, the role, and the orderly end.
///
///     running --SIGTERM--> draining (exchanges end, bounded) --> report and records (bounded) -->
/// end
///                             '-- second SIGTERM --> end at once
final class ProcessLife {
    private let options: SidecarOptions
    private let control: EventLoop
    private let log: Log
    private let metrics: SidecarMetrics
    private let tls: ProcessTLS
    private let role: any Role
    private var admin: AdminServer?
    private var isDraining = false
    private var code = ExitCode.success

    init(_ options: SidecarOptions, _ control: EventLoop, _ log: Log) throws {
        self.options = options
        self.control = control
        self.log = log
        metrics = SidecarMetrics(Metrics())
        metrics.show(log)
        let failure = FailureBox()
        tls = try ProcessTLS(options, log, nowNanoseconds: control.nowNanoseconds)
        let context = RoleContext(
            options: options, control: control, log: log, metrics: metrics, tls: tls,
            failure: failure)
        switch options.mode {
        case .standalone(let mode): role = try StandaloneRole(mode, context)
        case .agent(let mode): role = try AgentRole(mode, context)
        case .gateway(let mode): role = try GatewayRole(mode, context)
        }
        failure.handler = { [unowned self] in fail($0) }
    }

    func start() throws {
        if let address = options.admin {
            admin = try AdminServer(
                on: address, loop: control, metrics: metrics.registry
            ) { [unowned self] in state() }
            log.info("admin listener", ("address", admin?.address.description ?? ""))
        }
        LoopLag.measure(control, worker: "control", metrics)
        tls.watch(options, control)
        try role.start()
    }

    private func state() -> AdminPages.State {
        var state = AdminPages.State()
        state.isDraining = isDraining
        state.settings = options.shown
        role.describe(&state)
        return state
    }

    // MARK: The end

    func signalReceived(_ signal: Int32) {
        // The settings are read once; a policy comes by itself. Terminals that close say SIGHUP.
        if signal == SIGHUP { return }
        guard !isDraining else {
            log.warning("ended in mid-drain by a second signal")
            code = .interrupted
            return control.stop()
        }
        isDraining = true
        log.info("draining", ("signal", String(signal)))
        role.drain { [self] in
            log.info("drained")
            control.stop()
        }
    }

    /// After the control loop has ended.
    func finish() -> ExitCode {
        admin?.close()
        role.finish()
        return code
    }

    /// Something that cannot go on was found after the start.
    private func fail(_ error: StartError) {
        log.error("cannot go on", ("error", error.description))
        code = error.code
        control.stop()
    }
}

private final class FailureBox {
    var handler: ((StartError) -> Void)?
}

/// What every role is made from.
struct RoleContext: @unchecked Sendable {
    // SAFETY: everything in it is immutable or `Sendable`, but `tls` and `failure`, which are
    // touched on the control loop only.
    let options: SidecarOptions
    let control: EventLoop
    let log: Log
    let metrics: SidecarMetrics
    let tls: ProcessTLS
    fileprivate let failure: FailureBox

    /// Ends the process; on the control loop.
    func fail(_ error: StartError) { failure.handler?(error) }

    /// Feeds `weir_loop_lag_seconds` for each worker.
    func measureLag(of server: SidecarServer) {
        for (index, worker) in server.workers.enumerated() {
            LoopLag.measure(worker.loop, worker: String(index), metrics)
        }
    }

    /// Now and each second from now on, on the control loop.
    func everySecond(_ body: @escaping @Sendable () -> Void) {
        control.execute {
            body()
            self.again(body)
        }
    }

    private func again(_ body: @escaping @Sendable () -> Void) {
        control.schedule(afterNanoseconds: 1_000_000_000) {
            body()
            self.again(body)
        }
    }

    func serverConfiguration(_ timeouts: Timeouts = Timeouts()) -> ServerConfiguration {
        var timeouts = timeouts
        timeouts.drainNanoseconds = UInt64(options.drainSeconds) * 1_000_000_000
        return ServerConfiguration(
            listen: options.listen, workers: options.workers, timeouts: timeouts,
            tls: tls.listener)
    }
}
