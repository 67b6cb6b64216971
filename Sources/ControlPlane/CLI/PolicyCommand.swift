import ArgumentParser
import Foundation
import NIOHTTP1
import WeirCore
import WeirCrypto
import WeirPolicy

struct PolicyCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "policy", abstract: "Compiles policies, shows their history, takes them back.",
        subcommands: [PolicyCompile.self, PolicyHistory.self, PolicyRollback.self])
}

struct PolicyCompile: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "compile",
        abstract:
            "Checks a policy and writes it as the one JSON file that a standalone sidecar reads."
    )

    @Argument(help: "Files and folders with the documents (YAML or JSON).")
    var paths: [String]

    @Option(name: .shortAndLong, help: "The file to write (default: standard output).")
    var output: String?

    func run() async throws {
        try await reportingFailures {
            let files = try PolicyFiles(paths)
            do throws(Problems) {
                _ = try PolicyReader.read(files.documents)
            } catch {
                throw Failure("the policy is not valid:\n" + files.describe(error.list))
            }
            let text = Self.compiled(files.documents).prettyText
            guard let output else { return Console.print(text) }
            do {
                // Whole or not at all: a sidecar may be reading the old file.
                try Data((text + "\n").utf8).write(
                    to: URL(fileURLWithPath: output), options: .atomic)
            } catch {
                throw Failure("\(output): cannot be written")
            }
            Console.error("\(output): \(files.documents.count) documents")
        }
    }

    /// No store gave this policy a number, so it is the first one of epoch 0.
    static func compiled(_ documents: [JSONValue]) -> JSONValue {
        let hash = Hex.encode(Crypto.sha256(CompiledPolicy.canonicalBytes(of: documents)))
        return CompiledPolicy(
            version: PolicyVersion(epoch: 0, number: 1, hash: hash), documents: documents
        ).json
    }
}

struct PolicyHistory: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "history", abstract: "Lists the versions that were active, the newest first.")

    @Option(help: "How many versions.")
    var limit = 20

    @OptionGroup var output: OutputOptions
    @OptionGroup var connection: ConnectionOptions

    func run() async throws {
        try await reportingFailures {
            let answer = try await connection.connect().resource(
                "/v1/policy/history?limit=\(limit)")
            try output.output.print(answer) {
                var table = Table(headings: ["VERSION", "ACTIVATED", "AUTHOR", "HASH", "NOTE"])
                table.rows = (answer["versions"]?.array ?? []).map { entry in
                    [
                        VersionText(entry["version"])?.description ?? "",
                        entry["activated_at"]?.string ?? "", entry["author"]?.string ?? "",
                        String(entry["version"]?["hash"]?.string?.prefix(12) ?? ""),
                        entry["note"]?.string ?? "",
                    ]
                }
                return table
            }
        }
    }
}

struct PolicyRollback: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rollback",
        abstract: "Makes an earlier version's documents the policy again, as a new version.")

    @Argument(help: "The number of the version to go back to.")
    var number: Int64

    @OptionGroup var connection: ConnectionOptions

    func run() async throws {
        try await reportingFailures {
            let server = try connection.connect()
            let answer = try await server.send(
                .POST, "/v1/policy/rollback", body: ["to": .number(JSONNumber(number))])
            Apply.printChanges(try await server.succeeded(answer), dryRun: false)
        }
    }
}
