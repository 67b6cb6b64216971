import ControlPlaneStore
import HTTPTypes
import Hummingbird
import Logging
import WeirCore
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

/// Who holds money of accounts, and the audited write-off of those that never come back:
/// `/v1/ledger/holders`.
struct HoldersAPI: Sendable {
    let services: ControlPlaneServices

    func addRoutes(to table: RouteTable) {
        table.add("/v1/ledger/holders", [.get: list])
        table.add("/v1/ledger/holders/:incarnation", [.get: get])
        table.add("/v1/ledger/holders/:incarnation/write-off", [.post: writeOff])
    }

    // MARK: Who holds what

    private func list(_ request: Request, _ context: ServerContext) async throws -> Response {
        var limit = ServerLimits.holdersPageDefault
        if let text = request.query("limit") {
            guard let number = Int(text), (1...StoreLimits.holdersPageMax).contains(number) else {
                throw APIProblem.parameter(
                    "limit", "a number from 1 to \(StoreLimits.holdersPageMax) is needed")
            }
            limit = number
        }
        var last: Incarnation?
        if let text = request.query("cursor") {
            guard let number = Int64(text), number > 0 else {
                throw APIProblem.parameter("cursor", "is not the next of a page")
            }
            last = Incarnation(number)
        }
        let store = try services.ledger().store
        let page = try await store.holders(after: last, limit: limit)
        var body: JSONObject = ["holders": .array(page.holders.map(Self.json))]
        body["next"] = page.next.map { .string($0.description) }
        return .json(.object(body))
    }

    private func get(_ request: Request, _ context: ServerContext) async throws -> Response {
        let holder = try await holder(try context.incarnation())
        guard var object = Self.json(holder).object else { throw APIProblem.internalError }
        Self.add(holder.shares, to: &object)
        return .json(.object(object))
    }

    private func holder(_ incarnation: Incarnation) async throws -> LeaseHolder {
        guard let holder = try await services.ledger().store.holder(incarnation) else {
            throw APIProblem.notFound("Nobody has joined as incarnation \(incarnation).")
        }
        return holder
    }

    // MARK: Write-off

    private func writeOff(_ request: Request, _ context: ServerContext) async throws -> Response {
        let incarnation = try context.incarnation()
        let order = try WriteOffOrder(reading: try await request.json())
        let ledger = try services.ledger()
        let holder = try await holder(incarnation)
        guard order.isForced || holder.state != .alive else { throw refusal(of: holder) }
        let lives = try await ledger.store.livesEnding(with: incarnation)
        let expected = try await shares(of: lives)
        if order.isDryRun { return .json(Self.json(holder, lives, expected, order)) }
        // In the log before it is made: a crash in between leaves an entry too many, never money
        // that nobody knows who counted as spent.
        try await note("ledger.write_off", holder, Self.words(for: expected), order.reason)
        switch try await ledger.store.writeOff(incarnation, isForced: order.isForced) {
        case .done(let shares):
            // A report that was under way may have changed what there was.
            if shares != expected {
                try await note("ledger.written_off", holder, Self.words(for: shares), order.reason)
            }
            context.logger.warning(
                "written off",
                metadata: [
                    "incarnation": "\(incarnation)", "instance": "\(holder.instance)",
                    "spent": "\(Self.words(for: shares))",
                ])
            return .json(Self.json(holder, lives, shares, order))
        case .unknown:
            throw APIProblem.notFound("Nobody has joined as incarnation \(incarnation).")
        case .alive: throw refusal(of: holder)
        }
    }

    private func shares(of lives: [Incarnation]) async throws -> [LeaseHolder.Share] {
        let store = try services.ledger().store
        var amounts: [AccountKey: NanoUSD] = [:]
        for life in lives {
            for share in try await store.holder(life)?.shares ?? [] {
                amounts[share.account, default: .zero] += share.held
            }
        }
        return LeaseHolder.Share.ordered(amounts)
    }

    private func refusal(of holder: LeaseHolder) -> APIProblem {
        let heard = (holder.lastReportAt ?? holder.joinedAt).rfc3339
        return APIProblem(
            status: .conflict, reason: "holder_alive", title: "This holder is alive",
            detail: "Incarnation \(holder.incarnation) (\(holder.name)) was heard at \(heard): "
                + "it may be spending, and gives back by itself what it does not need. Once it "
                + "has been silent for \(StoreLimits.endpointFreshMilliseconds / 1_000) s, or "
                + "with force, it can be written off.")
    }

    private func note(
        _ action: String, _ holder: LeaseHolder, _ detail: String, _ reason: String
    ) async throws {
        let log = try services.ledger().subjects.log
        try await log.append(
            AdminAction(
                at: try await services.redis.time(), author: "admin", action: action,
                subject: "\(holder.incarnation)", detail: "\(holder.name): \(detail)",
                reason: reason))
    }

    // MARK: As JSON

    /// "0.040000 USD and 3 requests of 2 accounts".
    private static func words(for shares: [LeaseHolder.Share]) -> String {
        let total = Totals(shares)
        var amounts: [String] = []
        if total.usd > .zero || total.requests == 0 { amounts.append(total.usd.usd + " USD") }
        if total.requests > 0 { amounts.append("\(total.requests) requests") }
        let accounts = shares.count == 1 ? "1 account" : "\(shares.count) accounts"
        return amounts.joined(separator: " and ") + " of " + accounts
    }

    private struct Totals {
        var usd = NanoUSD.zero
        var requests: Int64 = 0

        init(_ shares: [LeaseHolder.Share]) {
            for share in shares {
                switch share.account.unit {
                case .usd: usd += share.held
                case .requests: requests += share.held.rawValue
                // Counted by the minute alone, and such accounts are no part of what is held.
                case .tokens: break
                }
            }
        }
    }

    private static func json(_ holder: LeaseHolder) -> JSONValue {
        let total = Totals(holder.shares)
        var object: JSONObject = [
            "incarnation": .number(JSONNumber(holder.incarnation.rawValue)),
            "role": .string(holder.role.rawValue), "instance": .string(holder.instance),
            "state": .string(holder.state.rawValue), "joined_at": .string(holder.joinedAt.rfc3339),
            "held_usd": .string(total.usd.usd),
            "held_requests": .number(JSONNumber(total.requests)),
            "accounts_held": .number(JSONNumber(holder.shares.count)),
            "awaited_calls": .number(JSONNumber(holder.awaitedCalls)),
        ]
        object["agent"] = holder.agent.map { .string($0) }
        object["adopted_by"] = holder.adoptedBy.map { .number(JSONNumber($0.rawValue)) }
        object["last_report_at"] = holder.lastReportAt.map { .string($0.rfc3339) }
        object["missing_since"] = holder.missingSince.map { .string($0.rfc3339) }
        return .object(object)
    }

    private static func json(
        _ holder: LeaseHolder, _ lives: [Incarnation], _ shares: [LeaseHolder.Share],
        _ order: WriteOffOrder
    ) -> JSONValue {
        let total = Totals(shares)
        var object: JSONObject = [
            "incarnation": .number(JSONNumber(holder.incarnation.rawValue)),
            "instance": .string(holder.instance), "state_before": .string(holder.state.rawValue),
            "dry_run": .bool(order.isDryRun),
            "incarnations": .array(lives.map { .number(JSONNumber($0.rawValue)) }),
            "spent_usd": .string(total.usd.usd),
            "spent_requests": .number(JSONNumber(total.requests)),
            "awaited_calls": .number(JSONNumber(holder.awaitedCalls)),
        ]
        add(shares, to: &object)
        return .object(object)
    }

    /// The largest; the sums beside them have all.
    private static func add(_ shares: [LeaseHolder.Share], to object: inout JSONObject) {
        object["accounts"] = .array(
            shares.prefix(ServerLimits.holderAccountsMax).map { share in
                let amount: JSONValue =
                    switch share.account.unit {
                    case .usd: .string(share.held.usd)
                    case .requests, .tokens: .number(JSONNumber(share.held.rawValue))
                    }
                return ["account": .string(share.account.description), "amount": amount]
            })
        let omitted = max(0, shares.count - ServerLimits.holderAccountsMax)
        object["accounts_omitted"] = .number(JSONNumber(omitted))
    }
}

/// The body of a write-off.
private struct WriteOffOrder {
    var isDryRun: Bool
    var isForced: Bool
    var reason: String

    init(reading body: JSONValue) throws(Problems) {
        let problems = ProblemList()
        let reader = ObjectReader(body, at: JSONPointer([]), problems)
        isDryRun = reader?.bool("dry_run") ?? false
        isForced = reader?.bool("force") ?? false
        // Whoever looks into the log later has to learn why this money is gone.
        reason =
            reader?.string("reason", required: !isDryRun, bytesMax: StoreLimits.reasonBytesMax)
            ?? ""
        reader?.finish()
        try problems.throwIfAny()
    }
}

extension LeaseHolder {
    fileprivate var name: String {
        ([role.rawValue] + [agent, instance].compactMap { $0 }).joined(separator: " ")
    }
}

extension ServerContext {
    fileprivate func incarnation() throws -> Incarnation {
        guard let number = Int64(try pathParameter("incarnation")), number > 0 else {
            throw APIProblem.notFound("The path's incarnation is not a number.")
        }
        return Incarnation(number)
    }
}
