import CLinux
import Glibc
import SidecarCore

/// The process's TLS: the contexts of the moment, and the files that they come from. Those are
/// looked at each second; what cannot be used leaves everything as it was.
final class ProcessTLS {
    private let listening: TLSReloader<TLSServerContext>?
    private let upstream: TLSReloader<TLSClientContext>?
    private let log: Log

    /// On the control loop, as everything here.
    init(_ options: SidecarOptions, _ log: Log, nowNanoseconds: UInt64) throws(StartError) {
        self.log = log
        do throws(OptionProblems) {
            listening = try options.listenerTLS.map { settings throws(OptionProblems) in
                TLSReloader(
                    settings.files, try settings.context(TextFile.read),
                    renewedAfterNanoseconds: UInt64(TLSLimits.ticketKeySeconds) * 1_000_000_000,
                    nowNanoseconds: nowNanoseconds)
            }
            upstream = try options.upstreamTLS.map { settings throws(OptionProblems) in
                TLSReloader(
                    settings.files, try settings.context(TextFile.read),
                    nowNanoseconds: nowNanoseconds)
            }
        } catch {
            // They were fine a moment ago, when the settings were read.
            let problems = error.list.map(\.description).joined(separator: "; ")
            throw StartError(code: .usage, description: problems)
        }
    }

    /// For our listener; `nil`: plaintext.
    var listener: TLSListener? {
        listening.map { [log] in
            TLSListener($0.current) { failure, peer in
                let fields = [("peer", peer.description), ("error", failure.description)]
                switch failure {
                case .untrusted, .noCertificate, .notAllowed:
                    log.warning("a client was refused", fields[0], fields[1])
                case .negotiation, .connection, .noMemory:
                    log.debug("a TLS handshake failed", fields[0], fields[1])
                }
            }
        }
    }

    /// For the agent's instances, which all have one scheme and one name.
    func transport(to origins: [HTTPOrigin], of agent: String) -> UpstreamTransport {
        guard let upstream, let origin = origins.first, origin.isSecure else { return .plaintext }
        let name: TLSServerName = origin.name.map { .dns($0.host) } ?? .address
        return .tls(
            TLSUpstream(name, upstream.current) { [log] failure, address in
                log.warning(
                    "no TLS connection to the agent", ("agent", agent),
                    ("address", address.description), ("error", failure.description))
            })
    }

    // MARK: Files that change

    func watch(_ options: SidecarOptions, _ control: EventLoop) {
        guard listening != nil || upstream?.isWatching == true else { return }
        control.schedule(afterNanoseconds: TLSLimits.watchNanoseconds) { [weak self] in
            guard let self else { return }
            if let listening, let settings = options.listenerTLS {
                say(
                    listening.look(nowNanoseconds: control.nowNanoseconds) {
                        () throws(OptionProblems) in try settings.context(TextFile.read)
                    }, "listener")
            }
            if let upstream, let settings = options.upstreamTLS {
                say(
                    upstream.look(nowNanoseconds: control.nowNanoseconds) {
                        () throws(OptionProblems) in try settings.context(TextFile.read)
                    }, "upstream")
            }
            watch(options, control)
        }
    }

    private func say(_ outcome: TLSReload, _ side: String) {
        switch outcome {
        case .unchanged: break
        case .renewed: log.info("new keys for TLS tickets", ("side", side))
        case .replaced: log.info("certificates were replaced", ("side", side))
        case .refused(let problems):
            for problem in problems {
                log.warning(
                    "certificates cannot be used; those before stay", ("side", side),
                    ("setting", problem.option), ("error", problem.message))
            }
        }
    }
}

/// What became of a look at the files.
enum TLSReload: Hashable, Sendable {
    case unchanged
    /// The same files, another context: the keys of its tickets are new.
    case renewed
    case replaced
    case refused([OptionProblem])
}

/// One context and the files it was made from.
final class TLSReloader<Context: Sendable> {
    let current: TLSCurrent<Context>
    private let files: [String]
    private var stamps: [FileStamp?]
    private let renewalNanoseconds: UInt64
    private var madeNanoseconds: UInt64

    /// `context` was made from the files a moment ago.
    init(
        _ files: [String], _ context: Context, renewedAfterNanoseconds: UInt64 = .max,
        nowNanoseconds: UInt64
    ) {
        self.files = files
        current = TLSCurrent(context)
        stamps = files.map(FileStamp.init)
        renewalNanoseconds = renewedAfterNanoseconds
        madeNanoseconds = nowNanoseconds
    }

    var isWatching: Bool { !files.isEmpty }

    func look(
        nowNanoseconds now: UInt64, make: () throws(OptionProblems) -> Context
    ) -> TLSReload {
        // Taken before the files are read: what changes meanwhile is seen the next time.
        let found = files.map(FileStamp.init)
        let isChanged = found != stamps
        guard isChanged || now - madeNanoseconds >= renewalNanoseconds else { return .unchanged }
        stamps = found
        madeNanoseconds = now
        do throws(OptionProblems) {
            current.replace(try make())
            return isChanged ? .replaced : .renewed
        } catch {
            return .refused(error.list)
        }
    }
}

/// By what a file is known to be another one. A mounted secret is replaced by a link to another
/// file; an editor may keep the file and change what is in it.
struct FileStamp: Hashable, Sendable {
    private var inode: UInt64
    private var size: Int
    private var seconds: Int
    private var nanoseconds: Int

    init?(_ path: String) {
        var found = stat()
        guard stat(path, &found) == 0 else { return nil }
        inode = UInt64(found.st_ino)
        size = Int(found.st_size)
        seconds = found.st_mtim.tv_sec
        nanoseconds = found.st_mtim.tv_nsec
    }
}
