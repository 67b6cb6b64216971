import CLinux
import Glibc
import SidecarCore
import WeirCore

// The composition of the process, on one page.
//
//     main thread    control loop: signals, admin listener, uplink to the control plane
//     worker threads one loop each: listener, connections, pool; AdmissionInterceptor (agent) or
//                    GatewayService (gateway)
//     shared         SidecarLedger behind its mutex, its journal thread, the log's thread
//
// Policy comes in by the uplink (or once from a file), becomes an immutable snapshot and is handed
// to every worker through its loop's mailbox.

enum Wiring {
    static func run(_ options: SidecarOptions) -> ExitCode {
        weir_ignore_sigpipe()
        do {
            let control = try EventLoop()
            let signals = SignalBox()
            // Before any other thread: those inherit the mask that keeps signals for the
            // descriptor.
            let source = try SignalSource([SIGTERM, SIGINT, SIGHUP], loop: control) {
                signals.received($0)
            }
            let log = Log(level: options.logLevel)
            defer { log.flush() }
            let code = compose(options, control, signals, log)
            source.close()
            return code
        } catch {
            StandardError.say("weir-sidecar: \(error)")
            return .system
        }
    }

    private static func compose(
        _ options: SidecarOptions, _ control: EventLoop, _ signals: SignalBox, _ log: Log
    ) -> ExitCode {
        do {
            let process = try ProcessLife(options, control, log)
            signals.handler = { process.signalReceived($0) }
            try process.start()
            control.run()
            return process.finish()
        } catch let error as StartError {
            log.error("cannot start", ("error", error.description))
            StandardError.say("weir-sidecar: \(error)")
            return error.code
        } catch {
            log.error("cannot start", ("error", "\(error)"))
            StandardError.say("weir-sidecar: \(error)")
            return .system
        }
    }
}

/// Signals may come while the process is put together: they are kept until somebody listens.
final class SignalBox {
    private var early: [Int32] = []
    var handler: ((Int32) -> Void)? {
        didSet {
            guard let handler else { return }
            for signal in early { handler(signal) }
            early = []
        }
    }

    func received(_ signal: Int32) {
        if let handler { handler(signal) } else { early.append(signal) }
    }
}

/// Why the process cannot begin, for a person to read, and the exit code that says so.
struct StartError: Error, CustomStringConvertible {
    var code: ExitCode
    var description: String
}

enum StandardError {
    static func say(_ text: String) {
        let bytes = Array((text + "\n").utf8)
        // Nobody to tell when it fails.
        _ = write(STDERR_FILENO, bytes, bytes.count)
    }
}
