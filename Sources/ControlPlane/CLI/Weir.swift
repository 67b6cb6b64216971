import ArgumentParser
import WeirCore

/// The command line of the mesh. Exit codes: 0 done; 1 refused, failed or not healthy; 2 the
/// control plane could not be asked; 64 the command was not understood.
@main
struct Weir: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "weir",
        abstract: "Operates a Weir mesh: its policy, its sidecars, its costs.",
        discussion: """
            The control plane is http://127.0.0.1:8400, or WEIR_SERVER, or --server. The
            administrator's token is in --token-file, WEIR_ADMIN_TOKEN_FILE or WEIR_ADMIN_TOKEN.
            """,
        subcommands: [
            Apply.self, Get.self, PolicyCommand.self, Check.self, Audit.self, TokenCommand.self,
            KeyCommand.self, UserCommand.self, Prices.self, CostCommand.self, LedgerCommand.self,
        ])

    static func main() async {
        await main(reordered(Array(CommandLine.arguments.dropFirst())))
    }

    /// Options of the connection may stand before the command, as with kubectl; the parser looks
    /// for them behind it.
    static func reordered(_ arguments: [String]) -> [String] {
        let movable: Set = ["--server", "--token-file", "--timeout"]
        var rest = arguments[...]
        var moved: [String] = []
        while let first = rest.first {
            if movable.contains(first), rest.count > 1 {
                moved += rest.prefix(2)
                rest = rest.dropFirst(2)
            } else if movable.contains(where: { first.hasPrefix($0 + "=") }) {
                moved.append(first)
                rest = rest.dropFirst()
            } else {
                break
            }
        }
        let end = rest.firstIndex(of: "--") ?? rest.endIndex
        return rest[..<end] + moved + rest[end...]
    }
}

/// An outcome that ends the command, with the words for standard error.
struct Failure: Error, Sendable {
    static let refused: Int32 = 1
    static let unreachable: Int32 = 2

    var message: String
    var code: Int32 = Failure.refused

    init(_ message: String, code: Int32 = Failure.refused) {
        self.message = message
        self.code = code
    }
}

/// Runs a command's body and turns its failure into words on standard error and an exit code.
func reportingFailures(_ body: () async throws -> Void) async throws {
    do {
        try await body()
    } catch let failure as Failure {
        Console.error("error: " + failure.message)
        throw ExitCode(failure.code)
    }
}
