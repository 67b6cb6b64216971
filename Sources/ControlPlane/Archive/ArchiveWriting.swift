import WeirCore
import WeirLedger
import WeirMeshProtocol

/// The names of a record, as the archive stores them.
struct ArchiveNames: Hashable, Sendable {
    var subject: String
    var tier: String
    var tenant: String
    var agent: String
    var model: String
    var requestType: String
    var tags: String

    init(_ record: AttemptRecord, _ names: [UInt32: String]) {
        func name(_ number: UInt32) -> String { SQLText.storable(names[number] ?? "") }
        subject = name(record.subject)
        tier = name(record.tier)
        tenant = name(record.tenant)
        agent = name(record.agent)
        model = name(record.model)
        requestType = name(record.requestType)
        tags = name(record.tags)
    }
}

/// What storing means in statements, within one transaction.
enum ArchiveWriting {
    /// Sequences that are looked at in one step when a gap has closed.
    private static let followingMax: Int64 = 4_096
    /// Records of one statement. Each statement is a trip to the server.
    private static let recordsPerStatement = 32

    static func store(
        _ blocks: [RecordBlock], in database: any SQLConnection
    ) throws(ArchiveError) -> [Incarnation: UInt64] {
        var through: [Incarnation: Int64] = [:]
        // In one order, so that two writers of the same chains never wait in a circle.
        for incarnation in Set(blocks.map(\.incarnation)).sorted() {
            let rows = try database.query(
                ArchiveSQL.lockChain, [.integer(incarnation.rawValue)])
            through[incarnation] = rows.first?.first?.integer ?? 0
        }
        var rollup = HourlyRollup()
        for block in blocks {
            var rest = block.records[...]
            while !rest.isEmpty {
                let count = rest.count >= recordsPerStatement ? recordsPerStatement : 1
                try store(rest.prefix(count), block.names, &rollup, in: database)
                rest = rest.dropFirst(count)
            }
        }
        try rollup.store(in: database)
        var answer: [Incarnation: UInt64] = [:]
        for (incarnation, before) in through.sorted(by: { $0.key < $1.key }) {
            answer[incarnation] = UInt64(
                clamping: try advance(incarnation, from: before, in: database))
        }
        return answer
    }

    private static func store(
        _ records: ArraySlice<AttemptRecord>, _ names: [UInt32: String],
        _ rollup: inout HourlyRollup, in database: any SQLConnection
    ) throws(ArchiveError) {
        var parameters: [SQLValue] = []
        for record in records { parameters += try row(record, ArchiveNames(record, names)) }
        let inserted = Set(
            try database.query(ArchiveSQL.insertRecords(count: records.count), parameters)
                .compactMap { $0.first?.integer })
        var tags: [SQLValue] = []
        for record in records {
            if inserted.contains(Int64(clamping: record.sequence)) {
                let names = ArchiveNames(record, names)
                rollup.add(record, names)
                for tag in Tags(text: names.tags)?.names ?? [] {
                    tags += [
                        .integer(record.incarnation.rawValue),
                        .integer(Int64(clamping: record.sequence)), .text(tag),
                    ]
                }
            } else {
                try checkStored(record, in: database)
            }
        }
        guard !tags.isEmpty else { return }
        try database.execute(ArchiveSQL.insertTags(count: tags.count / 3), tags)
    }

    /// What is there already must be the same to the byte.
    private static func checkStored(
        _ record: AttemptRecord, in database: any SQLConnection
    ) throws(ArchiveError) {
        let stored = try database.query(
            ArchiveSQL.recordBytes,
            [.integer(record.incarnation.rawValue), .integer(Int64(clamping: record.sequence))])
        guard stored.first?.first?.blob == record.bytes else {
            throw .conflict(incarnation: record.incarnation.rawValue, sequence: record.sequence)
        }
    }

    private static func row(
        _ record: AttemptRecord, _ names: ArchiveNames
    ) throws(ArchiveError) -> [SQLValue] {
        guard let sequence = Int64(exactly: record.sequence) else {
            throw .database("a sequence beyond 2^63")
        }
        func count(_ value: UInt32) -> SQLValue { .integer(Int64(value)) }
        let tokens = record.tokens
        return [
            .integer(record.incarnation.rawValue), .integer(sequence),
            .integer(record.startedAt.milliseconds),
            .text(Period(.day, at: record.startedAt).description),
            .text(record.run.description), .text(record.request.description),
            .integer(record.paidBy.lease.incarnation.rawValue),
            .integer(record.paidBy.lease.number), .integer(record.paidBy.child),
            .integer(record.reserved.rawValue), .integer(record.cost.rawValue),
            count(tokens.input), count(tokens.cachedInput), count(tokens.cacheWrite),
            count(tokens.output), count(tokens.reasoning), count(record.latencyMicroseconds),
            count(record.firstByteMicroseconds), .integer(Int64(record.status)),
            .text(record.reason.name), .text(record.source.name), .text(names.subject),
            .text(names.tier), .text(names.tenant), .text(names.agent), .text(names.model),
            .text(names.requestType), .integer(record.policyNumber),
            .integer(record.priceVersion), .integer(Int64(record.flags.rawValue)),
            .blob(record.bytes), .text(names.tags),
        ]
    }

    static func storedThrough(
        _ incarnation: Incarnation, in database: any SQLConnection
    ) throws(ArchiveError) -> UInt64 {
        let rows = try database.query(
            ArchiveSQL.storedThrough, [.integer(incarnation.rawValue)])
        return UInt64(clamping: rows.first?.first?.integer ?? 0)
    }

    /// Moves the mark over everything that follows it without a gap. Sequences begin at 1.
    private static func advance(
        _ incarnation: Incarnation, from before: Int64, in database: any SQLConnection
    ) throws(ArchiveError) -> Int64 {
        var through = before
        var hasMore = true
        while hasMore {
            let rows = try database.query(
                ArchiveSQL.following,
                [.integer(incarnation.rawValue), .integer(through), .integer(followingMax)])
            hasMore = rows.count == followingMax
            for row in rows {
                guard row.first?.integer == through + 1 else {
                    hasMore = false
                    break
                }
                through += 1
            }
        }
        if through > before {
            try database.execute(
                ArchiveSQL.advance, [.integer(through), .integer(incarnation.rawValue)])
        }
        return through
    }
}
