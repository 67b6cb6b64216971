import ArgumentParser
import WeirCore

struct Check: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract:
            "Looks at every part of the mesh and says what is wrong; exit code 1 if anything is.")

    @OptionGroup var connection: ConnectionOptions

    func run() async throws {
        var report = CheckReport()
        try await reportingFailures {
            let server = try connection.connect()
            let readiness: Connection.Answer
            do {
                readiness = try await server.get("/readyz")
                report.add("control plane", .good, "the API answers at \(server.server)")
            } catch let failure as Failure {
                report.add("control plane", .bad, failure.message)
                return
            }
            report.addReadiness(readiness.body)
            let sidecars = try await server.get("/v1/sidecars")
            guard sidecars.isSuccess else {
                report.add(
                    "control plane", sidecars.status == 503 ? .doubtful : .bad,
                    "the sidecars cannot be listed: \(sidecars.detail)")
                return
            }
            report.addSidecars(sidecars.body)
        }
        Console.print(report.text)
        if report.isBad { throw ExitCode(Failure.refused) }
    }
}

/// Findings in groups, in the order in which they came.
struct CheckReport: Equatable {
    enum Verdict: String { case good = "✓", doubtful = "‼", bad = "✗" }

    struct Finding: Equatable {
        var verdict: Verdict
        var text: String
    }

    private(set) var groups: [(name: String, findings: [Finding])] = []

    static func == (left: CheckReport, right: CheckReport) -> Bool { left.text == right.text }

    mutating func add(_ group: String, _ verdict: Verdict, _ text: String) {
        let finding = Finding(verdict: verdict, text: text)
        if let position = groups.firstIndex(where: { $0.name == group }) {
            groups[position].findings.append(finding)
        } else {
            groups.append((group, [finding]))
        }
    }

    var isBad: Bool { groups.contains { $0.findings.contains { $0.verdict == .bad } } }

    var text: String {
        var lines: [String] = []
        for group in groups {
            if !lines.isEmpty { lines.append("") }
            lines.append(group.name)
            lines += group.findings.map { "  \($0.verdict.rawValue) \($0.text)" }
        }
        let findings = groups.flatMap(\.findings)
        let bad = findings.count { $0.verdict == .bad }
        let doubtful = findings.count { $0.verdict == .doubtful }
        lines += ["", "\(findings.count) checks: \(bad) failed, \(doubtful) to look at"]
        return lines.joined(separator: "\n")
    }

    /// `GET /readyz`: the store and the policy, as the control plane sees them.
    mutating func addReadiness(_ answer: JSONValue) {
        for check in answer["checks"]?.array ?? [] {
            let name = check["name"]?.string ?? "?"
            let detail = check["detail"]?.string ?? ""
            let verdict: Verdict =
                switch check["state"]?.string {
                case "ok": .good
                case "warning": .doubtful
                default: .bad
                }
            add(name == "policy" ? "policy" : "store", verdict, "\(name): \(detail)")
        }
    }

    /// `GET /v1/sidecars`: what each one runs, and how it is.
    mutating func addSidecars(_ answer: JSONValue) {
        let sidecars = answer["sidecars"]?.array ?? []
        if sidecars.isEmpty { add("sidecars", .doubtful, "none has joined") }
        for sidecar in sidecars {
            let name = Rollout.name(of: sidecar)
            guard sidecar["connected"]?.bool == true else {
                add(
                    "sidecars", .doubtful,
                    "\(name): silent since \(sidecar["last_report_at"]?.string ?? "it joined")")
                continue
            }
            let policy = policyFinding(sidecar["policy"])
            let health = healthFinding(sidecar["health"])
            let verdict =
                [policy.verdict, health.verdict].contains(.bad)
                ? Verdict.bad
                : [policy.verdict, health.verdict].contains(.doubtful) ? .doubtful : .good
            add("sidecars", verdict, "\(name): \(policy.text); \(health.text)")
        }
    }

    private func policyFinding(_ policy: JSONValue?) -> Finding {
        let applied = VersionText(policy?["applied"])?.description ?? "no policy"
        switch policy?["state"]?.string {
        case "current": return Finding(verdict: .good, text: "runs \(applied)")
        case "refused":
            let version = VersionText(policy?["refused"]?["version"])
            let problems = (policy?["refused"]?["problems"]?.array ?? []).map {
                "\($0["path"]?.string ?? "") \($0["message"]?.string ?? "")"
            }
            return Finding(
                verdict: .bad,
                text: "refused \(version?.description ?? "the policy") and keeps the one before: "
                    + problems.joined(separator: "; "))
        default: return Finding(verdict: .doubtful, text: "runs \(applied), not the newest")
        }
    }

    private func healthFinding(_ health: JSONValue?) -> Finding {
        let reasons = (health?["reasons"]?.array ?? []).compactMap(\.string)
        let why = reasons.isEmpty ? "" : " (" + reasons.joined(separator: ", ") + ")"
        switch health?["state"]?.string {
        case "serving": return Finding(verdict: .good, text: "serving")
        case "draining": return Finding(verdict: .doubtful, text: "draining" + why)
        case "degraded": return Finding(verdict: .doubtful, text: "degraded" + why)
        default: return Finding(verdict: .doubtful, text: "no report yet")
        }
    }
}
