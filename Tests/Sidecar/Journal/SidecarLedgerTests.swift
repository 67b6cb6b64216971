import Glibc
import SidecarCore
import Synchronization
import Testing
import WeirCore
import WeirLedger
import WeirMeshProtocol

/// The ledger on real files. Dropping it is what kill -9 does: nothing is written at the end.
@Suite struct SidecarLedgerTests {
    @Test func anOpenDelegationSettlesAtItsWorstCaseAfterACrash() throws {
        let folder = TemporaryFolder()
        var ledger: SidecarLedger? = try openLedger(folder)
        try ledger?.begin(Incarnation(3), secret: [1, 2, 3], isAdopted: false)
        #expect(accept(ledger, 1, 500) == .accepted(1))
        #expect(accept(ledger, 2, 300) == .accepted(2))
        let settled = ledger?.settle(
            delegation: 2, record: ledgerRecord(cost: 100, paidBy: ledgerChild(2), reserved: 300),
            names: ledgerNames)
        #expect(settled?.isFinal == true)
        ledger = nil

        let again = try openLedger(folder)
        #expect(again.found.predecessor == Incarnation(3) && again.found.isWhole)
        #expect(again.found.secret == [1, 2, 3] && again.found.crashedAttempts == 1)
        #expect(again.resume())
        // The memory of what was accepted is in the log.
        #expect(accept(again, 1, 1) == .repeated)
        #expect(accept(again, 2, 1) == .repeated)
        let finals = again.makeReport()?.childFinals ?? []
        #expect(Set(finals.map(\.consumed)) == [NanoUSD(100), NanoUSD(500)])
        let records = again.recordBlocks(of: Incarnation(3), after: 0).flatMap(\.records)
        #expect(records.map(\.sequence) == [1, 2])
        #expect(records.map(\.cost) == [NanoUSD(100), NanoUSD(500)])
        #expect(records.last?.flags == .crashed && records.last?.reason == .crashed)
    }

    /// kill -9 leaves the segments behind that were prepared and never used. Their numbers are no
    /// gap in the log, however often that happens before the records of the first are stored.
    @Test func segmentsThatWereOnlyPreparedAreNoGap() throws {
        let folder = TemporaryFolder()
        for life in 1...4 {
            var ledger: SidecarLedger? = try openLedger(folder)
            let found = try #require(ledger?.found)
            #expect(found.flaw == nil && found.isWhole == (life > 1))
            #expect(found.crashedAttempts == (life > 1 ? 1 : 0))
            try ledger?.begin(Incarnation(Int64(life)), secret: [], isAdopted: life > 1)
            #expect(accept(ledger, Int64(life), 100) == .accepted(Int64(life)))
            ledger = nil
            // What the helper has ready; in any other end it takes them away.
            for index in [life + 1, life + 2] {
                folder.write(
                    [UInt8](repeating: 0, count: 4_096), to: "segment-000000000000000\(index)")
            }
        }
    }

    @Test func anOpenChildStaysOutstandingAcrossACrash() throws {
        let folder = TemporaryFolder()
        var key: ChildKey?
        var ledger: SidecarLedger? = try openLedger(folder)
        try ledger?.begin(Incarnation(3), secret: [], isAdopted: false)
        if let ledger { key = try delegate(ledger, 400) }
        ledger = nil

        let again = try openLedger(folder)
        try again.begin(Incarnation(4), secret: [], isAdopted: true)
        let open = try #require(again.makeReport()?.ledger.leases.first)
        // Idle money of the lease is given back, the child's is not.
        #expect(open.consumed == .zero && open.lease.incarnation == Incarnation(3))
        let demands = open.released
        again.childFinal(try #require(key), consumed: NanoUSD(150))
        let after = try #require(again.makeReport()?.ledger.leases.first)
        #expect(after.consumed == NanoUSD(150))
        #expect(after.released == demands + NanoUSD(250))
        again.childFinal(try #require(key), consumed: NanoUSD(150))
        #expect(again.makeReport()?.ledger.leases.first?.consumed == NanoUSD(150))
    }

    @Test func aCopiedLogReleasesNothing() throws {
        let folder = TemporaryFolder()
        let copy = TemporaryFolder()
        var ledger: SidecarLedger? = try openLedger(folder)
        try ledger?.begin(Incarnation(3), secret: [9], isAdopted: false)
        if let ledger { _ = try delegate(ledger, 400) }
        for file in folder.files { copy.write(folder.read(file), to: file) }
        ledger = nil

        var copied: SidecarLedger? = try openLedger(copy)
        #expect(copied?.found.isWhole == false)
        #expect(copied?.resume() == false)
        copied = nil
        // Nor after another start, which finds the copy's own new segment in its place.
        let again = try openLedger(copy)
        #expect(!again.found.isWhole)
        try again.begin(Incarnation(5), secret: [], isAdopted: true)
        let counters = try #require(again.makeReport()?.ledger.leases.first)
        #expect(counters.released == .zero)
    }

    @Test func replayStopsAtABadEntry() throws {
        let folder = TemporaryFolder()
        var ledger: SidecarLedger? = try openLedger(folder)
        try ledger?.begin(Incarnation(3), secret: [], isAdopted: false)
        for number in Int64(1)...3 {
            _ = ledger?.accept(ledgerChild(number), issuer: Incarnation(7), amount: NanoUSD(100))
        }
        ledger = nil
        let file = try #require(folder.files.last { $0.hasPrefix("segment-") })
        let bytes = folder.read(file)
        // The last committed entry: flip one of its bytes.
        let end = try #require(bytes.lastIndex { $0 != 0 })
        folder.write([bytes[end] ^ 0x40], to: file, at: end)

        let again = try openLedger(folder)
        #expect(!again.found.isWhole)
        #expect(again.found.crashedAttempts == 2)
    }

    /// What comes after a bad entry is evidence, and no place for a new segment.
    @Test func whatComesAfterABadEntryIsKept() throws {
        let folder = TemporaryFolder()
        var ledger: SidecarLedger? = try openLedger(folder)
        try ledger?.begin(Incarnation(3), secret: [], isAdopted: false)
        _ = ledger?.accept(ledgerChild(1), issuer: Incarnation(7), amount: NanoUSD(100))
        ledger = nil
        let file = try #require(folder.files.last { $0.hasPrefix("segment-") })
        let end = try #require(folder.read(file).lastIndex { $0 != 0 })
        folder.write([folder.read(file)[end] ^ 0x40], to: file, at: end)
        let later = Array("kept for people to look at".utf8)
        folder.write(later, to: "segment-0000000000000003")

        let again = try openLedger(folder)
        try again.begin(Incarnation(4), secret: [], isAdopted: false)
        #expect(folder.read("segment-0000000000000003") == later)
        #expect(folder.files.contains("segment-0000000000000004"))
    }

    @Test func theRecordOfACrashNamesWhoseMoneyItWas() throws {
        let folder = TemporaryFolder()
        var ledger: SidecarLedger? = try openLedger(folder)
        try ledger?.begin(Incarnation(3), secret: [], isAdopted: false)
        let names = RecordNames(
            subject: "alice", tier: "free", tenant: "acme", agent: "finbert",
            requestType: "news_analysis", tags: "launch,team:b")
        _ = ledger?.accept(
            ledgerChild(1), issuer: Incarnation(7), amount: NanoUSD(100), names: names)
        ledger = nil
        let again = try openLedger(folder)
        #expect(again.found.crashedAttempts == 1)
        let block = try #require(again.recordBlocks(of: Incarnation(3), after: 0).first)
        let record = try #require(block.records.first)
        #expect(record.reason == .crashed)
        #expect(block.names[record.subject] == "alice")
        #expect(block.names[record.tier] == "free")
        #expect(block.names[record.tenant] == "acme")
        #expect(block.names[record.agent] == "finbert")
        #expect(block.names[record.requestType] == "news_analysis")
        #expect(block.names[record.tags] == "launch,team:b")
    }

    @Test(arguments: [1, 4, 5, 8]) func everyAccountOfAChildComesBackAfterACrash(
        accounts count: Int
    ) throws {
        let folder = TemporaryFolder()
        var ledger: SidecarLedger? = try openLedger(folder)
        try ledger?.begin(Incarnation(3), secret: [], isAdopted: false)
        var key: ChildKey?
        if let ledger {
            let terms = (0..<count).map { ledgerTerms("account-\($0)") }
            let payer = try #require(ledger.payer(for: terms))
            var reservation: Reservation?
            for _ in 0...count where reservation == nil {
                let outcome = ledger.reserve(payer, worstCase: NanoUSD(400), least: .zero)
                if case .reserved(let number) = outcome { reservation = number }
                grantAll(ledger)
            }
            key = ledger.delegate(try #require(reservation), audience: Incarnation(9))
        }
        ledger = nil

        let again = try openLedger(folder)
        #expect(again.found.isWhole)
        try again.begin(Incarnation(4), secret: [], isAdopted: true)
        again.childFinal(try #require(key), consumed: NanoUSD(150))
        let leases = again.makeReport()?.ledger.leases ?? []
        #expect(Set(leases.map(\.account.id)) == Set((0..<count).map { "account-\($0)" }))
        #expect(leases.allSatisfy { $0.consumed == NanoUSD(150) })
    }

    @Test func twoProcessesCannotHaveOneLog() throws {
        let folder = TemporaryFolder()
        let ledger = try openLedger(folder)
        #expect(throws: JournalError.locked) { try openLedger(folder) }
        #expect(ledger.incarnation == nil)
    }

    @Test func theSecretIsForItsOwnerOnly() throws {
        let folder = TemporaryFolder()
        let ledger = try openLedger(folder)
        try ledger.begin(Incarnation(1), secret: [1], isAdopted: false)
        var status = stat()
        #expect(stat(folder.path + "/journal", &status) == 0)
        #expect(status.st_mode & 0o777 == 0o600)
    }

    @Test func segmentsGoWhenTheirRecordsAreStored() throws {
        let folder = TemporaryFolder()
        let ledger = try openLedger(folder)
        try ledger.begin(Incarnation(3), secret: [], isAdopted: false)
        try run(ledger, requests: 9_000)
        let before = ledger.gauges().journalBytes
        #expect(before >= 2 << 20)
        var stored: UInt64 = 0
        while let block = ledger.recordBlocks(of: Incarnation(3), after: stored, max: 1).first {
            #expect(block.records.first?.sequence == stored + 1)
            #expect(block.names.values.contains("finbert"))
            stored = block.records.last?.sequence ?? stored
        }
        #expect(stored == 9_000)
        ledger.recordsStored(of: Incarnation(3), through: stored)
        #expect(ledger.gauges().journalBytes == 1 << 20)
    }

    /// While the segment grows, and where an answer was lost and the same is asked for again.
    @Test func recordsAreReadOnWhereReadingStopped() throws {
        let folder = TemporaryFolder()
        let ledger = try openLedger(folder)
        try ledger.begin(Incarnation(3), secret: [], isAdopted: false)
        var sequences: [UInt64] = []
        var stored: UInt64 = 0
        for _ in 0..<3 {
            try run(ledger, requests: 700, from: sequences.count)
            while case let blocks = ledger.recordBlocks(of: Incarnation(3), after: stored, max: 2),
                !blocks.isEmpty
            {
                let again = ledger.recordBlocks(of: Incarnation(3), after: stored, max: 2)
                #expect(again.map(\.records) == blocks.map(\.records))
                #expect(blocks.allSatisfy { $0.names.values.contains("finbert") })
                sequences += blocks.flatMap(\.records).map(\.sequence)
                stored = sequences.last ?? 0
            }
            #expect(ledger.recordBlocks(of: Incarnation(3), after: stored).isEmpty)
        }
        #expect(sequences == (1...2_100).map { UInt64($0) })
    }

    @Test func aLongLogReplaysFromItsNewestSnapshot() throws {
        let folder = TemporaryFolder()
        var ledger: SidecarLedger? = try openLedger(folder)
        try ledger?.begin(Incarnation(3), secret: [], isAdopted: false)
        if let ledger { try run(ledger, requests: 9_000) }
        _ = ledger?.accept(ledgerChild(20_000), issuer: Incarnation(7), amount: NanoUSD(9))
        ledger = nil
        let again = try openLedger(folder)
        #expect(again.found.isWhole && again.found.crashedAttempts == 1)
        #expect(again.gauges().nextSequence == 9_002)
    }

    @Test func aLogAboveItsLimitStopsAdmissionAndLosesNothing() throws {
        let folder = TemporaryFolder()
        var configuration = SidecarLedger.Configuration(directory: folder.path)
        configuration.bytesKept = 2 << 20
        let accepted = try fill(SidecarLedger(configuration))
        #expect(accepted > 4_000)
    }

    /// On a disk of three segments and a bit. Where the test may not mount one, it says so.
    @Test func aFullDiskStopsAdmissionAndLosesNothing() throws {
        let folder = TemporaryFolder()
        guard mount("tmpfs", folder.path, "tmpfs", 0, "size=3500k") == 0 else {
            print("skipped: no file system can be mounted here (\(errno))")
            return
        }
        defer { umount2(folder.path, Int32(MNT_DETACH)) }
        let accepted = try fill(openLedger(folder))
        #expect(accepted > 4_000)
        let again = try? openLedger(folder)
        // Every accepted attempt has its record, and a full disk lets nobody begin.
        #expect(again == nil)
    }

    /// Accepts and settles until the log takes no more; every ending must be final.
    private func fill(_ ledger: SidecarLedger) throws -> Int {
        try ledger.begin(Incarnation(3), secret: [], isAdopted: false)
        var accepted = 0
        while accepted < 100_000,
            case .accepted(let number) = ledger.accept(
                ledgerChild(Int64(accepted + 1)), issuer: Incarnation(7), amount: NanoUSD(1))
        {
            accepted += 1
            let settled = ledger.settle(
                delegation: number,
                record: ledgerRecord(cost: 1, paidBy: ledgerChild(Int64(accepted)), reserved: 1),
                names: ledgerNames)
            #expect(settled.isFinal)
            // The helper thread prepares segments meanwhile.
            if accepted % 500 == 0 { waitForSegments(ledger) }
        }
        #expect(ledger.gauges().nextSequence == UInt64(accepted) + 1)
        let kept = ledger.recordBlocks(of: Incarnation(3), after: 0, max: 1_000)
        #expect(kept.reduce(0) { $0 + $1.records.count } == accepted)
        return accepted
    }

    @Test func aWaiterIsWokenOnceWhenMoneyComes() throws {
        let folder = TemporaryFolder()
        let ledger = try openLedger(folder)
        try ledger.begin(Incarnation(3), secret: [], isAdopted: false)
        let payer = try #require(ledger.payer(for: [ledgerTerms()]))
        let wakes = Mutex(0)
        var waiter: UInt64?
        let outcome = ledger.reserve(
            payer, worstCase: NanoUSD(10), least: .zero, waiter: &waiter,
            wake: { wakes.withLock { $0 += 1 } })
        #expect(outcome == .needsLease && waiter != nil)
        grantAll(ledger)
        #expect(wakes.withLock { $0 } == 1)
        guard case .reserved = ledger.reserve(payer, worstCase: NanoUSD(10), least: .zero) else {
            Issue.record("the grant is not usable")
            return
        }
    }

    @Test func aLocalAllowanceIsSpentOnceAlsoAcrossRestarts() throws {
        let folder = TemporaryFolder()
        for life in 0..<2 {
            let ledger = try openLedger(folder)
            try ledger.beginStandalone()
            ledger.grantLocally(ledgerTerms(), amount: NanoUSD(1_000))
            let payer = try #require(ledger.payer(for: [ledgerTerms()]))
            guard
                case .reserved(let reservation) = ledger.reserve(
                    payer, worstCase: NanoUSD(600 - Int64(life) * 200), least: .zero)
            else {
                Issue.record("life \(life)")
                return
            }
            let key = try #require(ledger.open(reservation))
            ledger.settle(
                reservation, record: ledgerRecord(cost: 600, paidBy: key, reserved: 600),
                names: ledgerNames)
            if life == 0 {
                let over = ledger.reserve(payer, worstCase: NanoUSD(401), least: .zero)
                guard case .exhausted = over else {
                    Issue.record("\(over)")
                    return
                }
            }
        }
    }

    @Test func aParentsQuestionIsAnsweredOutOfAWholeLogOnly() throws {
        let folder = TemporaryFolder()
        let copy = TemporaryFolder()
        var ledger: SidecarLedger? = try openLedger(folder)
        try ledger?.begin(Incarnation(3), secret: [], isAdopted: false)
        _ = accept(ledger, 1, 100)
        for file in folder.files { copy.write(folder.read(file), to: file) }
        ledger = nil

        let questions = [1, 2].map { OpenChild(key: ledgerChild($0), audience: Incarnation(3)) }
        for place in [folder, copy] {
            var again: SidecarLedger? = try openLedger(place)
            try again?.begin(Incarnation(4), secret: [], isAdopted: true)
            try ask(again, questions)
            // The crashed one's final went with the report that was answered with the questions: it
            // was asked for all the same, so it is said once more.
            let finals = again?.makeReport()?.childFinals ?? []
            let said = [(1, NanoUSD(100)), (2, NanoUSD.zero)]
                .map { ChildFinal(key: ledgerChild($0.0), consumed: $0.1) }
            #expect(finals == (place === folder ? said : []))
            // What this life was asked itself, it knows in either case.
            try ask(again, [OpenChild(key: ledgerChild(3), audience: Incarnation(4))])
            #expect(accept(again, 3, 1) == .repeated)
            again = nil
            let after = try openLedger(place)
            try after.begin(Incarnation(5), secret: [], isAdopted: true)
            #expect(accept(after, 3, 1) == .repeated)
        }
    }

    private func ask(_ ledger: SidecarLedger?, _ questions: [OpenChild]) throws {
        let reports = try #require(ledger?.makeReport())
        ledger?.apply(
            ReportResponse(
                finals: [], recalls: [], unknown: [], states: [], inquiries: questions),
            to: reports)
    }

    private func accept(
        _ ledger: SidecarLedger?, _ number: Int64, _ amount: Int64
    ) -> SidecarLedger.AcceptOutcome? {
        ledger?.accept(ledgerChild(number), issuer: Incarnation(7), amount: NanoUSD(amount))
    }

    private func delegate(_ ledger: SidecarLedger, _ amount: Int64) throws -> ChildKey {
        let payer = try #require(ledger.payer(for: [ledgerTerms()]))
        #expect(ledger.reserve(payer, worstCase: NanoUSD(amount), least: .zero) == .needsLease)
        grantAll(ledger)
        guard
            case .reserved(let reservation) = ledger.reserve(
                payer, worstCase: NanoUSD(amount), least: .zero)
        else { throw JournalError.locked }
        return try #require(ledger.delegate(reservation, audience: Incarnation(9)))
    }

    private func run(_ ledger: SidecarLedger, requests: Int, from first: Int = 0) throws {
        for number in (first + 1)...(first + requests) {
            guard
                case .accepted(let attempt) = ledger.accept(
                    ledgerChild(Int64(number)), issuer: Incarnation(7), amount: NanoUSD(10))
            else {
                Issue.record("request \(number): \(ledger.gauges())")
                return
            }
            _ = ledger.settle(
                delegation: attempt,
                record: ledgerRecord(cost: 7, paidBy: ledgerChild(Int64(number)), reserved: 10),
                names: ledgerNames)
            if number % 256 == 0 {
                let reports = try #require(ledger.makeReport())
                ledger.apply(
                    ReportResponse(finals: [], recalls: [], unknown: [], states: []), to: reports)
                waitForSegments(ledger)
            }
        }
    }
}
