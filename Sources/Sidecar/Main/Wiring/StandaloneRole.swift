import Glibc
import SidecarCore
import WeirCore
import WeirCrypto
import WeirLedger
import WeirPolicy

/// One service behind a policy from a file: no control plane, no Redis. The journal is on; a local
/// allowance stands in for the budget.
final class StandaloneRole: Role {
    private let mode: SidecarOptions.Standalone
    private let context: RoleContext
    private let ledger: SidecarLedger
    private let plane: AgentPlane
    private let compiled: CompiledPolicy
    private let policy: Policy

    init(_ mode: SidecarOptions.Standalone, _ context: RoleContext) throws {
        self.mode = mode
        self.context = context
        (compiled, policy) = try Self.readPolicy(mode.policyPath)
        let folder = try Self.dataFolder(mode, context.options)
        var configuration = SidecarLedger.Configuration(directory: folder + "/journal")
        configuration.bytesKept = Int64(mode.journalKeepBytes)
        configuration.isStandalone = true
        ledger = try openLedger(configuration)
        do {
            try ledger.beginStandalone()
        } catch {
            throw StartError(code: .data, description: "the journal: \(error)")
        }
        // One account for ever: what a restart finds in the log is what is left of it.
        let allowance = AccountTerms(
            key: AccountKey(
                unit: .usd, scope: .mesh, period: Period(.forever, at: UnixTime(seconds: 0)),
                id: mode.agent),
            limit: mode.allowance, maxLease: mode.allowance,
            policyNumber: compiled.version.number)
        ledger.grantLocally(allowance, amount: mode.allowance)
        context.metrics.show(ledger)
        context.metrics.showPolicy { [version = compiled.version] in version }
        let attempts = AttemptLedger(ledger, allowance: allowance)
        plane = AgentPlane(mode.agent, upstreams: mode.upstreams, ledger: attempts, context)
    }

    private static func readPolicy(_ path: String) throws(StartError) -> (CompiledPolicy, Policy) {
        do {
            let compiled = try CompiledPolicy(try JSON.parse(try TextFile.read(path)))
            let hash = Hex.encode(
                Crypto.sha256(CompiledPolicy.canonicalBytes(of: compiled.documents)))
            guard hash == compiled.version.hash else {
                throw StartError(
                    code: .data, description: "\(path): the hash is not that of the documents")
            }
            return (compiled, try PolicyReader.read(compiled.documents))
        } catch let error as StartError {
            throw error
        } catch let error as OptionProblem {
            throw StartError(code: .data, description: error.description)
        } catch {
            throw StartError(code: .data, description: "\(path): \(error)")
        }
    }

    /// Without `--data`: a folder of this user, agent and port, so that two services do not meet.
    private static func dataFolder(
        _ mode: SidecarOptions.Standalone, _ options: SidecarOptions
    ) throws(StartError) -> String {
        if let folder = options.dataFolder { return try makeFolder(folder) }
        let base = getenv("XDG_STATE_HOME").map { String(cString: $0) }
        let home = getenv("HOME").map { String(cString: $0) + "/.local/state" }
        guard let root = base ?? home else {
            throw StartError(code: .usage, description: "--data: is needed where HOME is not set")
        }
        let port = options.listen.port.map(String.init) ?? "unix"
        return try makeFolder("\(root)/weir/\(mode.agent)-\(port)")
    }

    func start() throws {
        guard
            let snapshot = plane.snapshot(
                policy, version: compiled.version, funding: .ownAllowance)
        else {
            throw StartError(
                code: .data, description: "\(mode.policyPath): has no agent \(mode.agent)")
        }
        try plane.apply(snapshot, version: compiled.version)
    }

    func drain(completed: @escaping () -> Void) { plane.drain(completed: completed) }

    func finish() { plane.stop() }

    func describe(_ state: inout AdminPages.State) {
        state.policyVersion = compiled.version
        state.documents = compiled.documents
        if !plane.isServing { state.notReady.append("starting") }
        if let problem = plane.healthProblem() { state.degraded.append("agent: \(problem)") }
        if let failure = ledger.gauges().journalFailure { state.degraded.append("\(failure)") }
    }
}

func openLedger(_ configuration: SidecarLedger.Configuration) throws(StartError) -> SidecarLedger {
    do throws(JournalError) {
        return try SidecarLedger(configuration)
    } catch {
        throw StartError(
            code: .data, description: "the journal in \(configuration.directory): \(error)")
    }
}

/// Makes a folder and those above it, for its owner only.
func makeFolder(_ path: String) throws(StartError) -> String {
    var made = path.hasPrefix("/") ? "" : "."
    for part in path.split(separator: "/") {
        made += "/" + part
        guard mkdir(made, 0o700) == 0 || errno == EEXIST else {
            throw StartError(code: .data, description: "\(made): \(SystemError("mkdir"))")
        }
    }
    return path
}
