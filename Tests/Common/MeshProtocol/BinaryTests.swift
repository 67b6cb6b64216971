import Testing
import WeirCore
import WeirCrypto
import WeirLedger
import WeirMeshProtocol

@Suite struct BinaryTests {
    @Test func everythingComesBack() {
        #expect(Delegation(payload: Samples.delegation.payload) == Samples.delegation)
        #expect(Settlement(payload: Samples.settlement.payload) == Samples.settlement)
        var counted = Samples.settlement
        for tokens in [0, 1, Int64.max] {
            counted.tokens = tokens
            #expect(Settlement(payload: counted.payload) == counted)
        }
        #expect(OutboundCall(payload: Samples.outboundCall.payload) == Samples.outboundCall)
        let capability = RunCapability(number: 3, run: Identifier(high: 1, low: 2))
        #expect(RunCapability(payload: capability.payload) == capability)
        for withDigests in [true, false] {
            let record = Samples.record(withDigests: withDigests)
            #expect(record.bytes.count == record.byteCount)
            #expect(AttemptRecord(bytes: record.bytes) == record)
        }
        #expect(AttemptRecord(bytes: Samples.record(withDigests: false).bytes)?.digests == nil)
        var writer = ByteWriter()
        let blocks = [Samples.block(records: 3), Samples.block(records: 256)]
        for block in blocks { block.append(to: &writer) }
        #expect(RecordBlock.readAll(writer.bytes) == blocks)
    }

    /// The layouts, byte for byte: journals and archives of yesterday must be readable tomorrow.
    @Test func goldenBytes() {
        #expect(
            Hex.encode(Samples.settlement.payload)
                == "0309000000" + "0c00000000000000" + "0700000000000000" + "0300000000000000"
                + "bfd4010000000000" + "03" + "01" + "00" + "0600000000000000" + "0b00"
                + "6770742d342d747572626f")
        #expect(
            Hex.encode(Samples.delegation.payload.prefix(108))
                == "0304030201" + "0c00000000000000" + "2200000000000000" + "0c00000000000000"
                + "0700000000000000" + "0300000000000000" + "c0d4010000000000"
                + "efcdab8967452301" + "0100000000000000" + "1032547698badcfe"
                + "0200000000000000" + "3c730000" + "02" + "32" + "0500000000000000" + "0500"
                + "616c696365"
                + "0400")
        let record = Samples.record().bytes
        #expect(
            Hex.encode(record.prefix(176))
                == "2900000000000000" + "2200000000000000" + "7b26acaa9a010000"
                + "1100000000000000" + "1200000000000000" + "1300000000000000"
                + "1400000000000000" + "0c00000000000000" + "0700000000000000"
                + "0300000000000000" + "c0d4010000000000" + "bfd4010000000000" + "15000000"
                + "16000000" + "17000000" + "18000000" + "19000000" + "1a000000" + "1b000000"
                + "c800" + "43" + "02" + "01000000" + "02000000" + "03000000" + "04000000"
                + "05000000" + "00000000" + "1100000000000000" + "0500000000000000" + "0c"
                + "00000000000000")
        #expect(Array(record[176..<208]) == Crypto.sha256([1]))
        #expect(Array(record[208..<240]) == Crypto.sha256([2]))
        #expect(record[240...].allSatisfy { $0 == 0 })
    }

    /// Tags make another version of what has them, so that who knows none reads all the rest.
    @Test func tagsComeBackBehindEverythingElse() throws {
        let tags = try #require(Tags(list: "team:search,launch"))
        var delegation = Samples.delegation
        delegation.tags = tags
        #expect(Delegation(payload: delegation.payload) == delegation)
        #expect(delegation.payload.first == 4 && Samples.delegation.payload.first == 3)
        #expect(
            Array(delegation.payload.dropFirst().prefix(Samples.delegation.payload.count - 1))
                == Array(Samples.delegation.payload.dropFirst()))
        var call = Samples.outboundCall
        call.tags = tags
        #expect(OutboundCall(payload: call.payload) == call)
        #expect(call.payload.first == 2 && Samples.outboundCall.payload.first == 1)
        for payload in [delegation.payload, call.payload] {
            for count in payload.indices {
                let part = Array(payload.prefix(count))
                #expect(Delegation(payload: part) == nil && OutboundCall(payload: part) == nil)
            }
        }
        // Of none there is one form, and what is no set of tags is none.
        for text in ["", "b,a"] {
            var writer = ByteWriter()
            writer.raw([4] + Samples.delegation.payload.dropFirst())
            writer.string(text)
            #expect(Delegation(payload: writer.bytes) == nil, "\(text)")
        }
        var record = Samples.record()
        record.tags = 0x0102_0304
        #expect(AttemptRecord(bytes: record.bytes) == record)
        #expect(Hex.encode(record.bytes[168..<176]) == "0c00000004030201")
    }

    /// No truncation is taken for a message, and none traps.
    @Test func everyTruncationIsRefused() {
        let delegation = Samples.delegation.payload
        for count in delegation.indices {
            #expect(Delegation(payload: Array(delegation.prefix(count))) == nil)
        }
        #expect(Delegation(payload: delegation + [0]) == nil)
        let settlement = Samples.settlement.payload
        for count in settlement.indices {
            #expect(Settlement(payload: Array(settlement.prefix(count))) == nil)
        }
        #expect(Settlement(payload: settlement + [0]) == nil)
        let record = Samples.record().bytes
        for count in record.indices where count != AttemptRecord.shortByteCount {
            #expect(AttemptRecord(bytes: record.prefix(count)) == nil)
        }
        var writer = ByteWriter()
        Samples.block().append(to: &writer)
        #expect(RecordBlock.readAll([]) == [])
        for count in writer.bytes.indices.dropFirst() {
            #expect(RecordBlock.readAll(Array(writer.bytes.prefix(count))) == nil)
        }
    }

    /// A flipped bit is another value or refused; what is read again says the same bytes.
    @Test func everyFlippedBitIsReadOrRefused() {
        for (index, bit) in flips(Samples.delegation.payload.count) {
            let changed = flipped(Samples.delegation.payload, index, bit)
            if let read = Delegation(payload: changed) { #expect(read.payload == changed) }
        }
        for (index, bit) in flips(Samples.settlement.payload.count) {
            let changed = flipped(Samples.settlement.payload, index, bit)
            if let read = Settlement(payload: changed) { #expect(read.payload == changed) }
        }
        for record in [Samples.record(), Samples.record(withDigests: false)] {
            for (index, bit) in flips(record.bytes.count) {
                let changed = flipped(record.bytes, index, bit)
                if let read = AttemptRecord(bytes: changed) {
                    #expect(read.bytes == changed, "byte \(index), bit \(bit)")
                }
            }
        }
    }

    @Test func everyFlippedByteOfABlockIsReadOrRefused() {
        var writer = ByteWriter()
        Samples.block().append(to: &writer)
        let whole = writer.bytes
        for index in whole.indices {
            var changed = whole
            changed[index] ^= 0xFF
            if let blocks = RecordBlock.readAll(changed) {
                var again = ByteWriter()
                for block in blocks { block.append(to: &again) }
                #expect(again.bytes == changed, "byte \(index)")
            }
        }
    }

    @Test func blocksThatContradictThemselvesAreRefused() {
        func read(_ change: (inout RecordBlock) -> Void) -> [RecordBlock]? {
            var block = Samples.block()
            change(&block)
            var writer = ByteWriter()
            block.append(to: &writer)
            return RecordBlock.readAll(writer.bytes)
        }
        #expect(read { _ in } != nil)
        #expect(read { $0.records.swapAt(0, 1) } == nil, "numbers out of row")
        #expect(read { $0.records[1].sequence += 1 } == nil, "a gap")
        #expect(read { $0.records[1].incarnation = Incarnation(35) } == nil, "another's record")
        #expect(read { $0.names[5] = nil } == nil, "an unexplained name")
        #expect(read { $0.records[0].tags = 6 } == nil, "unexplained tags")
        #expect(read { $0.names[0] = "none" } == nil, "0 stands for no name")
        #expect(read { $0.records = [] } == nil, "no record")
        let record = Samples.record()
        #expect(read { $0.records = Array(repeating: record, count: 257) } == nil, "too many")
    }

    @Test func negativeMoneyIsRefused() {
        var delegation = Samples.delegation
        delegation.amount = NanoUSD(-1)
        #expect(Delegation(payload: delegation.payload) == nil)
        var settlement = Samples.settlement
        settlement.consumed = NanoUSD(-1)
        #expect(Settlement(payload: settlement.payload) == nil)
        settlement = Samples.settlement
        settlement.tokens = -1
        #expect(Settlement(payload: settlement.payload) == nil)
        var call = Samples.outboundCall
        call.amount = NanoUSD(-1)
        #expect(OutboundCall(payload: call.payload) == nil)
        var record = Samples.record()
        record.cost = NanoUSD(-1)
        #expect(AttemptRecord(bytes: record.bytes) == nil)
    }

    @Test func randomBytesNeverTrap() {
        for count in 0..<400 {
            let bytes = Crypto.randomBytes(count)
            _ = Delegation(payload: bytes)
            _ = Settlement(payload: bytes)
            _ = OutboundCall(payload: bytes)
            _ = RunCapability(payload: bytes)
            _ = AttemptRecord(bytes: bytes)
            _ = RecordBlock.readAll(bytes)
        }
    }

    private func flips(_ count: Int) -> [(Int, Int)] {
        (0..<count).flatMap { index in (0..<8).map { (index, $0) } }
    }

    private func flipped(_ bytes: [UInt8], _ index: Int, _ bit: Int) -> [UInt8] {
        var changed = bytes
        changed[index] ^= 1 << UInt8(bit)
        return changed
    }
}
