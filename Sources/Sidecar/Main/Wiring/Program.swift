import CLinux
import Glibc
import SidecarCore
import WeirCore

/// What the process says when it ends.
package enum ExitCode: Int32, Sendable {
    /// It ended as it was told to, everything said.
    case success = 0
    /// The settings are wrong; all problems are on standard error.
    case usage = 2
    /// A file, a policy or the journal cannot be used.
    case data = 3
    /// The system refused: an address in use, no descriptors, no threads.
    case system = 4
    /// A second SIGTERM ended it in mid-drain.
    case interrupted = 5
}

/// From the command line to the exit code.
package enum Program {
    package static func run(arguments: [String]) -> Int32 {
        let environment = environmentVariables()
        let options: SidecarOptions
        do throws(OptionProblems) {
            let table = SidecarOptionTable.all
            if arguments.contains("--help") {
                say(OptionValues.help(table, usage: SidecarOptionTable.usage), STDOUT_FILENO)
                return ExitCode.success.rawValue
            }
            let values = try OptionValues(
                table: table, arguments: arguments, environment: environment,
                readFile: TextFile.read)
            options = try SidecarOptions(
                values, hostName: HostName.own, resolve: HostName.resolve)
        } catch {
            for problem in error.list { say("weir-sidecar: \(problem)\n", STDERR_FILENO) }
            say("weir-sidecar: --help lists all options\n", STDERR_FILENO)
            return ExitCode.usage.rawValue
        }
        return Wiring.run(options).rawValue
    }

    private static func say(_ text: String, _ descriptor: Int32) {
        var rest = Array(text.utf8)[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
            // Nobody reads: there is nobody to tell, either.
            guard count > 0 else { return }
            rest = rest.dropFirst(count)
        }
    }

    private static func environmentVariables() -> [String: String] {
        var variables: [String: String] = [:]
        // Read once, before any thread is started: `environ` is not safe against changes.
        var next = weir_environment()
        while let entry = next?.pointee {
            let text = String(cString: entry)
            if let equals = text.firstIndex(of: "=") {
                variables[String(text[..<equals])] = String(text[text.index(after: equals)...])
            }
            next = next?.advanced(by: 1)
        }
        return variables
    }
}

/// Small files read whole at start: settings, secrets, a policy.
enum TextFile {
    static let bytesMax = 64 << 20

    static func read(_ path: String) throws(OptionProblem) -> [UInt8] {
        let raw = open(path, O_RDONLY | O_CLOEXEC)
        guard raw >= 0 else { throw OptionProblem(option: path, message: "\(SystemError("open"))") }
        let descriptor = FileDescriptor(owning: raw)
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while true {
            let count = Glibc.read(descriptor.raw, &buffer, buffer.count)
            if count < 0 && errno == EINTR { continue }
            guard count >= 0 else {
                throw OptionProblem(option: path, message: "\(SystemError("read"))")
            }
            if count == 0 { return bytes }
            bytes.append(contentsOf: buffer.prefix(count))
            guard bytes.count <= bytesMax else {
                throw OptionProblem(option: path, message: "is larger than \(bytesMax) bytes")
            }
        }
    }
}
