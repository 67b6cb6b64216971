import ControlPlaneStore
import HTTPTypes
import Hummingbird
import WeirCore
import WeirLedger
import WeirMeshProtocol

/// `GET /v1/audit`: the records, the newest first, page by page. A page's cursor names its last
/// record, so that records which arrive meanwhile neither repeat nor hide others.
struct AuditAPI: Sendable {
    let services: ControlPlaneServices

    func addRoutes(to table: RouteTable) {
        table.add("/v1/audit", [.get: records])
    }

    private func records(_ request: Request, _ context: ServerContext) async throws -> Response {
        let query = try AuditQuery { request.query(Substring($0)) }
        // One more tells whether there is another page.
        var page = try await services.archive.records(
            where: query.filter, olderThan: query.cursor, limit: query.limit + 1)
        let hasMore = page.count > query.limit
        if hasMore { page.removeLast() }
        var body: JSONObject = ["records": .array(page.map(AuditRecord.json))]
        if hasMore, let last = page.last {
            body["next"] = .string(AuditCursor.encode(Archive.Position(of: last.record)))
        }
        return .json(.object(body))
    }
}

/// What a caller of the audit asks for; all that is wrong with it is reported at once.
struct AuditQuery {
    private(set) var filter = RecordFilter(
        from: UnixTime(milliseconds: .min), to: UnixTime(milliseconds: .max))
    private(set) var cursor: Archive.Position?
    private(set) var limit = ServerLimits.auditPageDefault

    init(_ parameter: (String) -> String?) throws {
        var problems: [Problem] = []
        func read<T>(_ name: String, _ needed: String, _ read: (String) -> T?) -> T? {
            guard let text = parameter(name) else { return nil }
            let value = read(text)
            if value == nil { problems.append(Problem(path: "/query/" + name, message: needed)) }
            return value
        }
        func time(_ name: String) -> UnixTime? {
            read(name, "a time is needed: 2026-11-22T14:20:00Z or 2026-11-22") { text in
                UnixTime(rfc3339: text)
                    ?? Period(text).flatMap { $0.kind == .day ? UnixTime($0.start) : nil }
            }
        }
        filter.from = time("from") ?? filter.from
        filter.to = time("to") ?? filter.to
        filter.subject = parameter("user")
        filter.tenant = parameter("tenant")
        filter.tier = parameter("tier")
        filter.tag = parameter("tag")
        filter.agent = parameter("agent")
        filter.model = parameter("model")
        filter.requestType = parameter("type")
        filter.run = read("run", "run_ and 26 characters are needed") {
            Self.identifier($0, "run_")
        }
        filter.request = read("request", "req_ and 26 characters are needed") {
            Self.identifier($0, "req_")
        }
        filter.status = read("status", "a status of HTTP is needed, or 0 for none") {
            UInt16($0).flatMap { $0 < 600 ? $0 : nil }
        }
        filter.reason = read("reason", "a reason's name is needed, as admitted or overloaded") {
            Reason(name: $0)
        }
        cursor = read("cursor", "is not the next of a page", AuditCursor.decode)
        limit =
            read("limit", "a number from 1 to \(ServerLimits.auditPageMax) is needed") { text in
                Int(text).flatMap { (1...ServerLimits.auditPageMax).contains($0) ? $0 : nil }
            } ?? limit
        guard problems.isEmpty else {
            throw APIProblem(
                status: .unprocessableContent, reason: Reason.invalid.name,
                title: Reason.invalid.title, detail: "The audit cannot be asked this.",
                problems: problems)
        }
    }

    private static func identifier(_ text: String, _ prefix: String) -> Identifier? {
        text.hasPrefix(prefix) ? Identifier(text.dropFirst(prefix.utf8.count)) : nil
    }
}

/// A position as text. Opaque to callers, and checked when it comes back.
enum AuditCursor {
    private static let version: UInt8 = 1

    static func encode(_ position: Archive.Position) -> String {
        var writer = ByteWriter(capacity: 25)
        writer.integer(version)
        writer.integer(position.startedAt.milliseconds)
        writer.integer(position.incarnation.rawValue)
        writer.integer(position.sequence)
        return Base64URL.encode(writer.bytes)
    }

    static func decode(_ text: String) -> Archive.Position? {
        guard text.utf8.count < 64, let bytes = Base64URL.decode(text) else { return nil }
        var reader = ByteReader(bytes)
        guard reader.integer(UInt8.self) == version, let time = reader.integer(Int64.self),
            let incarnation = reader.integer(Int64.self),
            let sequence = reader.integer(UInt64.self),
            reader.isAtEnd
        else { return nil }
        return Archive.Position(
            startedAt: UnixTime(milliseconds: time), incarnation: Incarnation(incarnation),
            sequence: sequence)
    }
}

/// A record as the API shows it.
enum AuditRecord {
    private static let flags: [(AttemptRecord.Flags, String)] = [
        (.overrun, "overrun"), (.crashed, "crashed"), (.streamed, "streamed"),
        (.observed, "observed"),
    ]

    static func json(_ archived: ArchivedRecord) -> JSONValue {
        let record = archived.record
        var object: JSONObject = [
            "incarnation": .number(JSONNumber(record.incarnation.rawValue)),
            "sequence": .number(JSONNumber(Int64(clamping: record.sequence))),
            "started_at": .string(record.startedAt.rfc3339Milliseconds),
            "request": .string("req_\(record.request)"), "run": .string("run_\(record.run)"),
            "status": .number(JSONNumber(Int64(record.status))),
            "reason": .string(record.reason.name),
            "latency_us": .number(JSONNumber(Int64(record.latencyMicroseconds))),
            "first_byte_us": .number(JSONNumber(Int64(record.firstByteMicroseconds))),
            "cost_usd": .string(record.cost.usd), "cost_source": .string(record.source.name),
            "reserved_usd": .string(record.reserved.usd), "tokens": tokens(record.tokens),
            "policy_version": .number(JSONNumber(record.policyNumber)),
            "price_version": .number(JSONNumber(record.priceVersion)),
            "flags": .array(
                flags.filter { record.flags.contains($0.0) }.map { .string($0.1) }),
            "paid_by": [
                "incarnation": .number(JSONNumber(record.paidBy.lease.incarnation.rawValue)),
                "lease": .number(JSONNumber(record.paidBy.lease.number)),
                "child": .number(JSONNumber(record.paidBy.child)),
            ],
        ]
        for (name, text) in [
            ("user", archived.subject), ("tenant", archived.tenant), ("tier", archived.tier),
            ("type", archived.requestType), ("agent", archived.agent), ("model", archived.model),
        ] where !text.isEmpty {
            object[name] = .string(text)
        }
        if let tags = Tags(text: archived.tags), !tags.isEmpty {
            object["tags"] = .array(tags.names.map { .string($0) })
        }
        if let digests = record.digests {
            object["input_sha256"] = .string(digests.input.hexadecimal)
            object["output_sha256"] = .string(digests.output.hexadecimal)
        }
        return .object(object)
    }

    private static func tokens(_ tokens: AttemptRecord.Tokens) -> JSONValue {
        let counts = [
            ("input", tokens.input), ("cached_input", tokens.cachedInput),
            ("cache_write", tokens.cacheWrite), ("output", tokens.output),
            ("reasoning", tokens.reasoning),
        ]
        var object: JSONObject = [:]
        for (name, count) in counts { object[name] = .number(JSONNumber(Int64(count))) }
        return .object(object)
    }
}
