import WeirCore
import WeirLedger

/// One attempt at an agent: the record is the settlement. Its little-endian bytes are the canonical
/// form: the journal writes them, `/mesh/v1/records` carries them and the archive keeps them as
/// they are. Names are interned: a number that the segment (in the journal) or the block (on the
/// wire) explains, 0 for none.
package struct AttemptRecord: Hashable, Sendable {
    /// Without and with the digests of the bodies.
    package static let shortByteCount = 176
    package static let fullByteCount = 304

    package struct Flags: OptionSet, Hashable, Sendable {
        package let rawValue: UInt8
        package init(rawValue: UInt8) { self.rawValue = rawValue }
        /// It cost more than was reserved: the provider broke its word.
        package static let overrun = Flags(rawValue: 1)
        /// Settled at replay, at its worst case.
        package static let crashed = Flags(rawValue: 2)
        package static let streamed = Flags(rawValue: 4)
        /// The policy only observed; it would have been refused for `reason`.
        package static let observed = Flags(rawValue: 8)
    }

    package struct Tokens: Hashable, Sendable {
        package var input: UInt32 = 0
        package var cachedInput: UInt32 = 0
        package var cacheWrite: UInt32 = 0
        package var output: UInt32 = 0
        package var reasoning: UInt32 = 0
        package init() {}
    }

    package struct Digests: Hashable, Sendable {
        /// Of the body that the caller sent, and of what the agent answered, as far as they came:
        /// the bytes of the wire without their framing, so a compressed body is hashed compressed.
        package var input: Digest
        package var output: Digest
        package init(input: Digest, output: Digest) {
            self.input = input
            self.output = output
        }
    }

    package var sequence: UInt64 = 0
    package var incarnation = Incarnation(0)
    package var startedAt = UnixTime(milliseconds: 0)
    package var run = Identifier(high: 0, low: 0)
    package var request = Identifier(high: 0, low: 0)
    /// The delegation, or the own lease with child 0, that pays.
    package var paidBy = ChildKey(lease: LeaseID(incarnation: Incarnation(0), number: 0), child: 0)
    package var reserved = NanoUSD.zero
    package var cost = NanoUSD.zero
    package var tokens = Tokens()
    package var latencyMicroseconds: UInt32 = 0
    package var firstByteMicroseconds: UInt32 = 0
    /// The status that the agent answered, 0 for none.
    package var status: UInt16 = 0
    package var reason = Reason.admitted
    package var source = CostSource.none
    package var subject: UInt32 = 0
    package var tier: UInt32 = 0
    package var tenant: UInt32 = 0
    package var agent: UInt32 = 0
    package var model: UInt32 = 0
    package var requestType: UInt32 = 0
    /// All of them as one name (`Tags.text`). Records of before there were any have zeros here.
    package var tags: UInt32 = 0
    package var policyNumber: Int64 = 0
    package var priceVersion: Int64 = 0
    package var flags: Flags = []
    package var digests: Digests?

    package init() {}

    package var byteCount: Int { digests == nil ? Self.shortByteCount : Self.fullByteCount }

    package var bytes: [UInt8] {
        var writer = ByteWriter(capacity: byteCount)
        writer.integer(sequence)
        writer.integer(incarnation.rawValue)
        writer.integer(startedAt.milliseconds)
        for identifier in [run, request] {
            writer.integer(identifier.high)
            writer.integer(identifier.low)
        }
        for number in [
            paidBy.lease.incarnation.rawValue, paidBy.lease.number, paidBy.child,
            reserved.rawValue, cost.rawValue,
        ] {
            writer.integer(number)
        }
        for number in [
            tokens.input, tokens.cachedInput, tokens.cacheWrite, tokens.output, tokens.reasoning,
            latencyMicroseconds, firstByteMicroseconds,
        ] {
            writer.integer(number)
        }
        writer.integer(status)
        writer.integer(reason.rawValue)
        writer.integer(source.rawValue)
        for name in [subject, tier, tenant, agent, model, requestType] { writer.integer(name) }
        writer.integer(policyNumber)
        writer.integer(priceVersion)
        writer.integer(flags.rawValue)
        writer.raw(repeatElement(0, count: 3))
        writer.integer(tags)
        if let digests {
            writer.raw(digests.input.bytes)
            writer.raw(digests.output.bytes)
            // Room for the salts of the commitments.
            writer.raw(repeatElement(0, count: 64))
        }
        return writer.bytes
    }

    /// Reads one record; `nil` when the bytes are neither of the two sizes, or say what no record
    /// can.
    package init?(bytes: some Collection<UInt8>) {
        guard bytes.count == Self.shortByteCount || bytes.count == Self.fullByteCount else {
            return nil
        }
        var reader = ByteReader(bytes)
        guard readIdentity(&reader), readOutcome(&reader) else { return nil }
        guard bytes.count == Self.fullByteCount else { return }
        // What nothing is written to yet is zero, so that one record has one spelling.
        guard let input = reader.raw(Digest.byteCount).flatMap({ Digest(bytes: $0) }),
            let output = reader.raw(Digest.byteCount).flatMap({ Digest(bytes: $0) }),
            reader.raw(64)?.allSatisfy({ $0 == 0 }) == true
        else { return nil }
        digests = Digests(input: input, output: output)
    }

    private mutating func readIdentity(_ reader: inout ByteReader) -> Bool {
        guard let sequence = reader.integer(UInt64.self),
            let incarnation = reader.integer(Int64.self),
            let startedAt = reader.integer(Int64.self), let run = reader.identifier(),
            let request = reader.identifier(), let leaseIncarnation = reader.integer(Int64.self),
            let leaseNumber = reader.integer(Int64.self), let child = reader.integer(Int64.self),
            let reserved = reader.integer(Int64.self), reserved >= 0,
            let cost = reader.integer(Int64.self), cost >= 0
        else { return false }
        self.sequence = sequence
        self.incarnation = Incarnation(incarnation)
        self.startedAt = UnixTime(milliseconds: startedAt)
        self.run = run
        self.request = request
        paidBy = ChildKey(
            lease: LeaseID(incarnation: Incarnation(leaseIncarnation), number: leaseNumber),
            child: child)
        self.reserved = NanoUSD(reserved)
        self.cost = NanoUSD(cost)
        return true
    }

    private mutating func readOutcome(_ reader: inout ByteReader) -> Bool {
        let counters = (0..<7).compactMap { _ in reader.integer(UInt32.self) }
        guard counters.count == 7, let status = reader.integer(UInt16.self),
            let reason = reader.integer(UInt8.self).flatMap(Reason.init(rawValue:)),
            let source = reader.integer(UInt8.self).flatMap(CostSource.init(rawValue:))
        else { return false }
        let names = (0..<6).compactMap { _ in reader.integer(UInt32.self) }
        guard names.count == 6, let policyNumber = reader.integer(Int64.self),
            let priceVersion = reader.integer(Int64.self), let flags = reader.integer(UInt8.self),
            reader.raw(3)?.allSatisfy({ $0 == 0 }) == true,
            let tags = reader.integer(UInt32.self)
        else { return false }
        self.tags = tags
        tokens.input = counters[0]
        tokens.cachedInput = counters[1]
        tokens.cacheWrite = counters[2]
        tokens.output = counters[3]
        tokens.reasoning = counters[4]
        latencyMicroseconds = counters[5]
        firstByteMicroseconds = counters[6]
        self.status = status
        self.reason = reason
        self.source = source
        (subject, tier, tenant) = (names[0], names[1], names[2])
        (agent, model, requestType) = (names[3], names[4], names[5])
        self.policyNumber = policyNumber
        self.priceVersion = priceVersion
        self.flags = Flags(rawValue: flags)
        return true
    }
}

/// At most 256 records in a row of one incarnation, with the names that they use: the body of
/// `POST /mesh/v1/records` is one or more of them.
package struct RecordBlock: Hashable, Sendable {
    package static let magic: UInt32 = 0x3142_5257  // "WRB1"

    package var incarnation: Incarnation
    package var names: [UInt32: String]
    package var records: [AttemptRecord]

    package init(incarnation: Incarnation, names: [UInt32: String], records: [AttemptRecord]) {
        self.incarnation = incarnation
        self.names = names
        self.records = records
    }

    package func append(to writer: inout ByteWriter) {
        writer.integer(Self.magic)
        writer.integer(incarnation.rawValue)
        writer.integer(UInt32(names.count))
        for (number, name) in names.sorted(by: { $0.key < $1.key }) {
            writer.integer(number)
            writer.string(name)
        }
        writer.integer(UInt32(records.count))
        for record in records {
            writer.integer(UInt16(record.byteCount))
            writer.raw(record.bytes)
        }
    }

    /// Reads all blocks of a message; `nil` when anything is wrong with one: its numbers out of
    /// row, another incarnation's record, an unexplained name, too many.
    package static func readAll(_ bytes: [UInt8]) -> [RecordBlock]? {
        var reader = ByteReader(bytes)
        var blocks: [RecordBlock] = []
        while !reader.isAtEnd {
            guard blocks.count < MeshLimits.blocksPerMessageMax,
                let block = RecordBlock(reading: &reader)
            else { return nil }
            blocks.append(block)
        }
        return blocks
    }

    private init?(reading reader: inout ByteReader) {
        guard reader.integer(UInt32.self) == Self.magic,
            let incarnation = reader.integer(Int64.self),
            let nameCount = reader.integer(UInt32.self),
            nameCount <= UInt32(MeshLimits.recordsPerBlockMax * 7)
        else { return nil }
        self.incarnation = Incarnation(incarnation)
        names = [:]
        records = []
        // In ascending order, 0 not among them, so that one block has one spelling.
        var previous: UInt32 = 0
        for _ in 0..<nameCount {
            guard let number = reader.integer(UInt32.self), number > previous,
                let name = reader.string()
            else { return nil }
            names[number] = name
            previous = number
        }
        guard let count = reader.integer(UInt32.self), count > 0,
            count <= UInt32(MeshLimits.recordsPerBlockMax)
        else { return nil }
        for _ in 0..<count {
            guard let size = reader.integer(UInt16.self), let raw = reader.raw(Int(size)),
                let record = AttemptRecord(bytes: raw), explains(record),
                records.last.map({ record.sequence == $0.sequence &+ 1 }) ?? true
            else { return nil }
            records.append(record)
        }
    }

    private func explains(_ record: AttemptRecord) -> Bool {
        record.incarnation == incarnation
            && [
                record.subject, record.tier, record.tenant, record.agent, record.model,
                record.requestType, record.tags,
            ].allSatisfy { $0 == 0 || names[$0] != nil }
    }
}
