import Foundation
import WeirCore

/// The project's own policy with single lines changed, in a folder of the test's: what an operator
/// does with a text editor.
struct AcceptancePolicy {
    struct NoSuchText: Error, CustomStringConvertible {
        let text: String
        var description: String { "the policy does not say: \(text)" }
    }

    private let folder: String
    var path: String { folder }

    init(in parent: TemporaryFolder, name: String = "policy") throws {
        folder = try parent.makeFolder(name)
        let source = Products.root.appendingPathComponent("manifests/policy")
        for file in try FileManager.default.contentsOfDirectory(atPath: source.path) {
            try FileManager.default.copyItem(
                atPath: source.appendingPathComponent(file).path, toPath: folder + "/" + file)
        }
    }

    func replace(_ file: String, _ old: String, with new: String) throws {
        let path = folder + "/" + file
        let text = try String(contentsOfFile: path, encoding: .utf8)
        guard text.contains(old) else { throw NoSuchText(text: old) }
        try text.replacingOccurrences(of: old, with: new).write(
            toFile: path, atomically: true, encoding: .utf8)
    }

    func add(_ file: String, _ text: String) throws {
        try text.write(toFile: folder + "/" + file, atomically: true, encoding: .utf8)
    }

    /// Takes an agent away with every tier's and request type's use of it; its price stays.
    func removeAgent(_ name: String) throws {
        for file in try FileManager.default.contentsOfDirectory(atPath: folder) {
            let text = try String(contentsOfFile: folder + "/" + file, encoding: .utf8)
            guard text.contains("kind: RequestType"), text.contains("[\(name)]") else { continue }
            try FileManager.default.removeItem(atPath: folder + "/" + file)
        }
        let path = folder + "/agents.yaml"
        let documents = try String(contentsOfFile: path, encoding: .utf8)
            .components(separatedBy: "\n---\n")
        let rest = documents.filter { !$0.contains("\n  name: \(name)\n") }
        guard rest.count == documents.count - 1 else { throw NoSuchText(text: name) }
        try rest.joined(separator: "\n---\n").write(
            toFile: path, atomically: true, encoding: .utf8)
        try replace("tiers.yaml", ", \(name)]", with: "]")
    }

    /// `weir policy compile`, and what it wrote.
    @discardableResult
    func compile(to path: String) async throws -> JSONValue {
        let result = try await Tools.run(
            Products.path("weir"), ["policy", "compile", folder, "-o", path])
        guard result.status == 0 else { throw TestProcess.Failed(description: result.output) }
        return try JSON.parse(String(contentsOfFile: path, encoding: .utf8))
    }

    /// A tier and a type of analysis with one step of a fixed price, without rate limits: for tests
    /// that count money exactly. `budget` and `maxLease` are USD.
    func addFixedPriceTier(
        budget: String, maxLease: String? = nil, more: String = "priority: 0"
    ) throws {
        try add(
            "acceptance.yaml",
            """
            apiVersion: weir.mesh/v1
            kind: Tier
            metadata:
              name: acceptance
            spec:
              monthlyBudget: "\(budget)"
              agents: [finbert]
              \(more)
            \(maxLease.map { "  maxLease: \"\($0)\"" } ?? "  outputTokensMax: 512")
            ---
            apiVersion: weir.mesh/v1
            kind: RequestType
            metadata:
              name: sentiment_only
            spec:
              timeout: 20s
              inputSchema:
                type: object
                required: [text]
                properties:
                  text: {type: string}
              steps:
                - name: sentiment
                  agents:
                    acceptance: [finbert]
                  input:
                    text: /data/text
                  timeout: 15s
            """)
    }

    static let sentimentOnly = #"""
        {"analysis_type": "sentiment_only", "data": {"text": "Profits beat expectations."}}
        """#
    static let fixedPrice = NanoUSD(120_000)

    static let newsAnalysis = #"""
        {"analysis_type": "news_analysis", "data": \#
        {"text": "Apple stock surged 5% after strong quarterly earnings report"}}
        """#
}

/// What the control plane knows of a user's money, once everything under way has arrived.
struct Books: Equatable, CustomStringConvertible {
    let limit: NanoUSD
    let consumed: NanoUSD
    let held: NanoUSD
    let recorded: NanoUSD

    var description: String {
        "limit \(limit.usd) consumed \(consumed.usd) held \(held.usd) recorded \(recorded.usd)"
    }
}

extension Mesh {
    /// The month's money account of a user; nil before there is one.
    func books(of user: String) async throws -> Books? {
        let month = Period(.month, at: UnixTime(seconds: Int64(Date().timeIntervalSince1970)))
        let answer = try await api.get(
            "/v1/accounts?account=usd/user/\(month)/\(user)", headers: adminHeaders)
        guard answer.status == 200 else { return nil }
        let json = try answer.json()
        func amount(_ name: String) -> NanoUSD? {
            json[name]?.string.flatMap { NanoUSD(usd: $0) }
        }
        guard let limit = amount("limit"), let consumed = amount("consumed"),
            let held = amount("held"), let recorded = amount("recorded")
        else { return nil }
        return Books(limit: limit, consumed: consumed, held: held, recorded: recorded)
    }

    /// Waits until every settlement is a stored record and nothing is set aside any more but what
    /// may lie idle for a minute: of an account of which most is left, while no request is open.
    func settledBooks(of user: String, within bound: Duration = .seconds(15)) async throws -> Books
    {
        var last: Books?
        do {
            return try await eventually("the books of \(user) close", within: bound) {
                last = try await books(of: user)
                guard let last, last.consumed == last.recorded else { return Books?.none }
                guard last.held > .zero else { return last }
                guard last.consumed + last.held <= NanoUSD(last.limit.rawValue / 2) else {
                    return nil
                }
                // Looked at before the books are looked at once more.
                let metrics = try await gatewayAdmin.metrics()
                let open = metrics.sum("weir_open_reservations")
                let unsaid = metrics.sum("weir_unreported_leases")
                guard open == 0, unsaid == 0, try await books(of: user) == last else { return nil }
                return last
            }
        } catch {
            throw TestProcess.Failed(
                description: "\(error); the last look: \(String(describing: last))")
        }
    }

    func agentAttempts(_ agent: String) async throws -> Int {
        try await agents.count("requests", of: agent)
    }
}
