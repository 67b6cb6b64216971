import ArgumentParser
import NIOHTTP1
import WeirCore

struct Apply: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Makes the documents of files and folders the mesh's policy.",
        discussion: """
            The documents replace the whole policy: what they leave out is removed. All problems \
            are reported at once, by file.
            """)

    @Option(
        name: [.customShort("f"), .customLong("filename")], parsing: .singleValue,
        help: "A file or folder (YAML or JSON); may be repeated.")
    var filenames: [String]

    @Flag(help: "Say what would change, and change nothing.")
    var dryRun = false

    @Flag(help: "Wait until every sidecar runs the new policy; fail when one refuses it.")
    var wait = false

    @Option(help: "Seconds to wait for the sidecars.")
    var waitTimeout: Int64 = 30

    @Option(help: "Why the policy changes; kept in its history.")
    var note: String?

    @OptionGroup var connection: ConnectionOptions

    func run() async throws {
        try await reportingFailures {
            let files = try PolicyFiles(filenames)
            let server = try connection.connect()
            var body: JSONObject = ["documents": .array(files.documents)]
            if let note { body["note"] = .string(note) }
            let answer = try await server.send(
                .PUT, "/v1/policy" + (dryRun ? "?dry_run=true" : ""), body: .object(body))
            let problems = answer.problems
            guard answer.status != 422, problems.isEmpty else {
                throw Failure("the policy is not valid:\n" + files.describe(problems))
            }
            let result = try await server.succeeded(answer)
            Self.printChanges(result, dryRun: dryRun)
            if wait, !dryRun { try await waitForSidecars(server, result) }
        }
    }

    static func printChanges(_ result: JSONValue, dryRun: Bool) {
        let suffix = dryRun ? " (dry run)" : ""
        for change in result["changes"]?.array ?? [] {
            let kind = change["kind"]?.string?.lowercased() ?? "document"
            let verb =
                switch change["change"]?.string {
                case "added": "created"
                case "removed": "deleted"
                default: "configured"
                }
            Console.print("\(kind)/\(change["name"]?.string ?? "") \(verb)\(suffix)")
            guard dryRun else { continue }
            for field in change["fields"]?.array ?? [] {
                let from = field["from"]?.text ?? "–"
                let to = field["to"]?.text ?? "–"
                Console.print("  \(field["path"]?.string ?? ""): \(from) → \(to)")
            }
        }
        guard let version = VersionText(result["version"]) else { return }
        let isUnchanged = result["changes"]?.array?.isEmpty ?? false
        Console.print(
            isUnchanged
                ? "policy unchanged at version \(version)\(suffix)"
                : dryRun ? "policy would follow version \(version)" : "policy \(version) active")
    }

    private func waitForSidecars(_ server: Connection, _ result: JSONValue) async throws {
        guard let version = VersionText(result["version"]) else { return }
        let rollout = Rollout(version: version)
        let deadline = ContinuousClock.now + .seconds(waitTimeout)
        while true {
            let status = rollout.status(try await server.resource("/v1/sidecars"))
            if !status.refusals.isEmpty {
                throw Failure(
                    "policy \(version) was refused:\n" + status.refusals.joined(separator: "\n"))
            }
            if status.waiting.isEmpty {
                Console.print("policy \(version) runs on \(status.running) sidecar(s)")
                return
            }
            guard ContinuousClock.now < deadline else {
                throw Failure(
                    "policy \(version) is not everywhere after \(waitTimeout) s; waiting for "
                        + status.waiting.joined(separator: ", "))
            }
            try await Task.sleep(for: .milliseconds(100))
        }
    }
}

/// (epoch, number) of a policy, as the API says it.
struct VersionText: Hashable, CustomStringConvertible {
    let epoch: Int64
    let number: Int64

    init?(_ value: JSONValue?) {
        guard let epoch = value?["epoch"]?.int64, let number = value?["number"]?.int64 else {
            return nil
        }
        self.epoch = epoch
        self.number = number
    }

    var description: String { "\(epoch).\(number)" }

    func isAtLeast(_ other: VersionText) -> Bool {
        (epoch, number) >= (other.epoch, other.number)
    }
}

/// Tells out of `GET /v1/sidecars` how far a version has come. Sidecars that are not connected are
/// not waited for: they get the policy when they come back.
struct Rollout {
    struct Status: Equatable {
        var running = 0
        var waiting: [String] = []
        /// The sidecars' own words.
        var refusals: [String] = []
    }

    let version: VersionText

    func status(_ answer: JSONValue) -> Status {
        var status = Status()
        for sidecar in answer["sidecars"]?.array ?? [] where sidecar["connected"]?.bool == true {
            let name = Self.name(of: sidecar)
            let policy = sidecar["policy"]
            if let refused = policy?["refused"], let at = VersionText(refused["version"]),
                at.isAtLeast(version)
            {
                let problems = (refused["problems"]?.array ?? []).map {
                    "\n    \($0["path"]?.string ?? ""): \($0["message"]?.string ?? "")"
                }
                status.refusals.append("  \(name)" + problems.joined())
            } else if let applied = VersionText(policy?["applied"]), applied.isAtLeast(version) {
                status.running += 1
            } else {
                status.waiting.append(name)
            }
        }
        return status
    }

    static func name(of sidecar: JSONValue) -> String {
        let subject = sidecar["agent"]?.string ?? sidecar["role"]?.string ?? "sidecar"
        return "\(subject) (\(sidecar["instance"]?.string ?? "?"))"
    }
}
