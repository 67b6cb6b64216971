import ArgumentParser
import WeirCore

/// The command line of the mesh. Exit codes: 0 done; 1 refused, failed or not healthy; 2 the control
/// plane could not be asked; 64 the command was not understood.
@main
struct Weir: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "weir",
        abstract: "Operates a Weir mesh: its policy, its sidecars, its costs.",
        discussion: """
            The control plane is http://127.0.0.1:8400, or WEIR_SERVER, or --server. The
            administrator's token comes from --token-file, WEIR_ADMIN_TOKEN_FILE or WEIR_ADMIN_TOKEN.
            """,
        subcommands: [
            Apply.self, Get.self, PolicyCommand.self, Check.self, TokenCommand.self,
        ])
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
