import ControlPlaneStore
import HTTPTypes
import Hummingbird
import WeirCore
import WeirCrypto
import WeirMeshProtocol
import WeirPolicy
import WeirYAML

/// `/v1/policy`: one bundle, validated whole, activated by compare-and-set, kept with its history.
struct PolicyAPI: Sendable {
    let services: ControlPlaneServices

    func addRoutes(to table: RouteTable) {
        table.add("/v1/policy", [.get: current, .put: replace])
        table.add("/v1/policy/history", [.get: history])
        table.add("/v1/policy/versions/:number", [.get: version])
        table.add("/v1/policy/rollback", [.post: rollBack])
    }

    // MARK: - Reading

    private func current(_ request: Request, _ context: ServerContext) async throws -> Response {
        guard let stored = try await services.policies.current() else {
            throw APIProblem.notFound("No policy has been applied yet.")
        }
        let tag = Self.entityTag(stored.version)
        if request.headers[.ifNoneMatch].map({ Self.lists($0, tag) }) ?? false {
            return Response(status: .notModified, headers: [.eTag: tag])
        }
        return Self.response(stored)
    }

    private func version(_ request: Request, _ context: ServerContext) async throws -> Response {
        guard let number = context.parameters.get("number", as: Int64.self), number > 0 else {
            throw APIProblem.notFound("A version's number is a whole number from 1.")
        }
        return Self.response(try await stored(number))
    }

    private func stored(_ number: Int64) async throws -> StoredPolicy {
        guard let stored = try await services.policies.bundle(number: number) else {
            throw APIProblem.notFound("There is no version \(number), or it is no longer kept.")
        }
        return stored
    }

    private func history(_ request: Request, _ context: ServerContext) async throws -> Response {
        var limit = ServerLimits.historyEntriesDefault
        if let text = request.query("limit") {
            guard let number = Int(text), (1...ServerLimits.historyEntriesMax).contains(number)
            else {
                throw APIProblem.parameter(
                    "limit", "a number from 1 to \(ServerLimits.historyEntriesMax) is needed")
            }
            limit = number
        }
        let entries = try await services.policies.history(limit: limit)
        return .json(["versions": .array(entries.map(Self.json))])
    }

    // MARK: - Changing

    private func replace(_ request: Request, _ context: ServerContext) async throws -> Response {
        let isDryRun = try Self.flag("dry_run", of: request)
        let submitted = try await submission(request)
        let current = try await services.policies.current()
        try Self.checkPrecondition(request, current?.version)
        let diff = PolicyDiff(from: current?.documents ?? [], to: submitted.documents)
        let problems = Self.problems(submitted.documents)
        if isDryRun {
            var object: JSONObject = [
                "dry_run": true, "valid": .bool(problems.isEmpty),
                "problems": .array(problems.map(\.json)), "changes": diff.json,
            ]
            if let current { object["version"] = Self.json(current.version) }
            return .json(.object(object))
        }
        if !problems.isEmpty {
            throw APIProblem.invalid(
                Problems(problems), "The policy has \(problems.count) problem(s); none is active.")
        }
        return try await activate(
            submitted.documents, note: submitted.note, over: current, diff: diff)
    }

    private func rollBack(_ request: Request, _ context: ServerContext) async throws -> Response {
        guard
            let body = try? JSON.parse(try await request.bytes(max: ServerLimits.smallBodyBytesMax))
        else { throw APIProblem.badRequest("The body is not JSON.") }
        guard let number = body["to"]?.int64, number > 0 else {
            throw APIProblem(
                status: .unprocessableContent, reason: Reason.invalid.name,
                title: Reason.invalid.title, detail: "The version to go back to is missing.",
                problems: [Problem(path: "/to", message: "a whole number from 1 is needed")])
        }
        let current = try await services.policies.current()
        try Self.checkPrecondition(request, current?.version)
        let earlier = try await stored(number)
        // What was valid once need not be so for rules that came later.
        let problems = Self.problems(earlier.documents)
        if !problems.isEmpty {
            throw APIProblem.invalid(
                Problems(problems), "Version \(number) is not valid any more.")
        }
        return try await activate(
            earlier.documents, note: "rollback to \(number)", over: current,
            diff: PolicyDiff(from: current?.documents ?? [], to: earlier.documents))
    }

    /// Compare-and-set over the version that the diff was made of. The documents that are active
    /// already make no new version, so that applying twice changes nothing.
    private func activate(
        _ documents: [JSONValue], note: String, over current: StoredPolicy?, diff: PolicyDiff
    ) async throws -> Response {
        let hash = Hex.encode(Crypto.sha256(CompiledPolicy.canonicalBytes(of: documents)))
        if let current, current.version.hash == hash {
            return Self.changed(current.version, PolicyDiff(from: [], to: []))
        }
        let version = try await services.policies.activate(
            documents: documents, hash: hash, expected: .some(current?.version), author: "admin",
            note: note)
        // The policy is active in any case; a failed look at it is made up for by the poll.
        try? await services.watcher.refresh()
        return Self.changed(version, diff)
    }

    // MARK: - Parts

    private struct Submission {
        var documents: [JSONValue]
        var note = ""
    }

    private func submission(_ request: Request) async throws -> Submission {
        let format: PolicyText.Format
        switch request.mediaType {
        case "application/json", nil: format = .json
        case "application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml": format = .yaml
        default: throw APIProblem.mediaType("application/json, application/yaml")
        }
        let bytes = try await request.bytes(max: ServerLimits.policyBytesMax)
        do {
            var submission = Submission(
                documents: try PolicyText.documents(in: bytes, format: format))
            if format == .json, let note = (try? JSON.parse(bytes))?["note"]?.string {
                guard note.utf8.count <= ServerLimits.noteBytesMax else {
                    throw Problems([
                        Problem(
                            path: "/note",
                            message: "at most \(ServerLimits.noteBytesMax) bytes are kept")
                    ])
                }
                submission.note = note
            }
            return submission
        } catch let problems as Problems {
            throw APIProblem.invalid(problems, "The body cannot be read as policy documents.")
        }
    }

    private static func problems(_ documents: [JSONValue]) -> [Problem] {
        do {
            _ = try PolicyReader.read(documents)
            return []
        } catch {
            return error.list
        }
    }

    /// `If-Match` (RFC 9110 §13.1.1), and `If-None-Match: *` for "only if there is none yet".
    private static func checkPrecondition(_ request: Request, _ version: PolicyVersion?) throws {
        if let field = request.headers[.ifMatch] {
            guard let version, lists(field, entityTag(version)) else {
                throw APIProblem.conflict(
                    version.map { "Active is \($0) with ETag \(entityTag($0))." }
                        ?? "There is no policy yet.")
            }
        }
        if request.headers[.ifNoneMatch] == "*", let version {
            throw APIProblem.conflict("There is a policy already: version \(version).")
        }
    }

    private static func lists(_ field: String, _ tag: String) -> Bool {
        field.split(separator: ",").contains { entry in
            let entry = entry.drop { $0 == " " }.prefix { $0 != " " }
            return entry == "*" || entry == tag
        }
    }

    private static func flag(_ name: Substring, of request: Request) throws -> Bool {
        switch request.query(name) {
        case nil, "false": return false
        case "", "true": return true
        default: throw APIProblem.parameter(String(name), "true or false is needed")
        }
    }

    static func entityTag(_ version: PolicyVersion) -> String { "\"\(version.hash)\"" }

    private static func changed(_ version: PolicyVersion, _ diff: PolicyDiff) -> Response {
        var response = Response.json(["version": json(version), "changes": diff.json])
        response.headers[.eTag] = entityTag(version)
        return response
    }

    private static func response(_ stored: StoredPolicy) -> Response {
        var response = Response.json(
            CompiledPolicy(version: stored.version, documents: stored.documents).json)
        response.headers[.eTag] = entityTag(stored.version)
        return response
    }

    static func json(_ version: PolicyVersion) -> JSONValue {
        [
            "epoch": .number(JSONNumber(version.epoch)),
            "number": .number(JSONNumber(version.number)), "hash": .string(version.hash),
        ]
    }

    private static func json(_ entry: PolicyActivation) -> JSONValue {
        [
            "version": json(entry.version), "author": .string(entry.author),
            "note": .string(entry.note), "activated_at": .string(entry.activatedAt.rfc3339),
        ]
    }
}
