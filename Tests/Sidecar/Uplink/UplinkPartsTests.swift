import Glibc
import SidecarCore
import Testing
import WeirCore
import WeirCrypto
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

@testable import SidecarUplink

@Suite struct LineReaderTests {
    private func texts(_ lines: [[UInt8]]?) -> [String]? {
        lines?.map { String(decoding: $0, as: UTF8.self) }
    }

    @Test func linesComeWholeHoweverTheyAreCut() {
        let text = Array("{\"a\":1}\n\n{\"b\":2}\r\n{\"c\"".utf8)
        for cut in 0...text.count {
            var reader = LineReader()
            let first = texts(reader.lines(adding: Array(text[..<cut]))) ?? []
            let second = texts(reader.lines(adding: Array(text[cut...]))) ?? []
            #expect(first + second == ["{\"a\":1}", "{\"b\":2}"])
            #expect(texts(reader.lines(adding: Array(":3}\n".utf8))) == ["{\"c\":3}"])
        }
    }

    @Test func aLineWithoutEndIsBounded() {
        var reader = LineReader(lineBytesMax: 8)
        #expect(reader.lines(adding: Array("12345678\n".utf8))?.count == 1)
        #expect(reader.lines(adding: Array("1234".utf8)) == [])
        #expect(reader.lines(adding: Array("56789".utf8)) == nil)
        var other = LineReader(lineBytesMax: 8)
        #expect(other.lines(adding: Array("123456789\n1\n".utf8)) == nil)
    }
}

@Suite struct SubjectCacheTests {
    private func request(_ name: String) -> SubjectRequest {
        SubjectRequest(claims: nil, apiKeyHash: name)
    }

    private func binding(_ user: String, milliseconds: Int64 = 1_000) -> SubjectBinding {
        SubjectBinding(
            user: user, tenant: nil, tier: "free", roles: [], accounts: [], preferences: nil,
            timeToLiveMilliseconds: milliseconds)
    }

    @Test func freshThenStaleThenGone() {
        var cache = SubjectCache()
        cache.insert(request("a"), binding("alice"), now: 100)
        #expect(cache.fresh(request("a"), now: 100)?.user == "alice")
        #expect(cache.fresh(request("b"), now: 100) == nil)
        let late: UInt64 = 100 + 1_000_000_000
        #expect(cache.fresh(request("a"), now: late) == nil)
        #expect(cache.stale(request("a"), now: late)?.user == "alice")
        #expect(cache.stale(request("a"), now: 100 + UplinkLimits.subjectStaleNanoseconds) == nil)
        cache.remove(request("a"))
        #expect(cache.stale(request("a"), now: late) == nil)
    }

    @Test func itIsDueAtHalfTimeAndStillServes() {
        var cache = SubjectCache()
        cache.insert(request("a"), binding("alice"), now: 0)
        #expect(!cache.isDue(request("a"), now: 499_999_999))
        #expect(cache.isDue(request("a"), now: 500_000_000))
        #expect(cache.fresh(request("a"), now: 500_000_000)?.user == "alice")
    }

    @Test func whatMayHaveChangedServesOnlyInAnEmergency() {
        var cache = SubjectCache()
        cache.insert(request("a"), binding("alice"), now: 0)
        cache.expireAll()
        #expect(cache.fresh(request("a"), now: 0) == nil)
        #expect(cache.stale(request("a"), now: 0)?.user == "alice")
    }

    @Test func aChangedUserIsForgottenUnderEveryCredential() {
        var cache = SubjectCache()
        for key in ["a", "b"] { cache.insert(request(key), binding("alice"), now: 0) }
        cache.insert(request("c"), binding("bob"), now: 0)
        cache.forget(["alice", "nobody"])
        #expect(cache.count == 1)
        #expect(cache.stale(request("a"), now: 0) == nil)
        #expect(cache.fresh(request("c"), now: 0)?.user == "bob")
    }

    @Test func aCredentialThatEndsIsNotRememberedForLonger() {
        var cache = SubjectCache()
        var ending = binding("alice", milliseconds: 10_000)
        ending.validForMilliseconds = 3
        cache.insert(request("a"), ending, now: 1_000_000)
        #expect(cache.fresh(request("a"), now: 3_999_999) != nil)
        #expect(cache.fresh(request("a"), now: 4_000_000) == nil)
        #expect(cache.stale(request("a"), now: 4_000_000) == nil)
        ending.validForMilliseconds = .max
        cache.insert(request("a"), ending, now: 1_000_000)
        #expect(cache.fresh(request("a"), now: 4_000_000) != nil)
    }

    @Test func theTimeToLiveIsBounded() {
        var cache = SubjectCache()
        cache.insert(request("a"), binding("alice", milliseconds: .max), now: 0)
        cache.insert(request("b"), binding("bob", milliseconds: -1), now: 0)
        let bound = UInt64(UplinkLimits.subjectTimeToLiveMillisecondsMax) * 1_000_000
        #expect(cache.fresh(request("a"), now: bound - 1) != nil)
        #expect(cache.fresh(request("a"), now: bound) == nil)
        #expect(cache.fresh(request("b"), now: 0) == nil)
    }

    @Test func theOldestGoes() {
        var cache = SubjectCache(entriesMax: 3)
        for name in ["a", "b", "c"] { cache.insert(request(name), binding(name), now: 0) }
        cache.insert(request("a"), binding("a2"), now: 0)
        cache.insert(request("d"), binding("d"), now: 0)
        #expect(cache.count == 3)
        #expect(cache.fresh(request("b"), now: 0) == nil, "a was renewed, b is the oldest")
        #expect(cache.fresh(request("a"), now: 0)?.user == "a2")
        for round in 0..<1_000 { cache.insert(request("a"), binding("\(round)"), now: 0) }
        for number in 0..<100 { cache.insert(request("\(number)"), binding("x"), now: 0) }
        #expect(cache.count == 3)
    }
}

@Suite struct PolicyGateTests {
    private func gate() -> PolicyGate { PolicyGate(read: MeshFixtures.readPolicy) }

    private func decide(_ gate: inout PolicyGate, _ projection: Projection) -> String {
        switch gate.decide(hash: MeshFixtures.hash(projection), projection) {
        case .unchanged: "unchanged"
        case .apply: "apply"
        case .refuse(_, isAlarm: true): "alarm"
        case .refuse(_, isAlarm: false): "refuse"
        }
    }

    @Test func versionsGoForwardOnly() {
        var gate = gate()
        let second = MeshFixtures.projection(2)
        #expect(decide(&gate, second) == "apply")
        #expect(decide(&gate, second) == "unchanged")
        #expect(decide(&gate, MeshFixtures.projection(1)) == "refuse")
        #expect(gate.applied?.version.number == 2)
        #expect(decide(&gate, MeshFixtures.projection(1, epoch: 2)) == "apply")
        #expect(decide(&gate, MeshFixtures.projection(9)) == "refuse", "an epoch that is over")
    }

    @Test func otherEndpointsAreNewsOtherDocumentsAnAlarm() {
        var gate = gate()
        #expect(decide(&gate, MeshFixtures.projection(2)) == "apply")
        #expect(decide(&gate, MeshFixtures.projection(2, endpoints: 1)) == "apply")
        #expect(gate.applied?.endpoints.count == 1)
        #expect(decide(&gate, MeshFixtures.projection(2, kind: "Tier")) == "alarm")
        var otherBundle = MeshFixtures.projection(2)
        otherBundle.version.hash = "ff"
        #expect(decide(&gate, otherBundle) == "alarm")
        #expect(gate.applied?.endpoints.count == 1)
    }

    @Test func aWrongHashIsAnAlarm() {
        var gate = gate()
        guard
            case .refuse(let problems, isAlarm: true) = gate.decide(
                hash: "00", MeshFixtures.projection(1))
        else {
            Issue.record("not refused")
            return
        }
        #expect(problems.map(\.path) == ["/hash"])
        #expect(gate.applied == nil)
    }

    @Test func theLastGoodOneStaysAfterARefusal() {
        var gate = gate()
        #expect(decide(&gate, MeshFixtures.projection(1)) == "apply")
        #expect(decide(&gate, MeshFixtures.projection(2, kind: "Bad")) == "refuse")
        #expect(gate.applied?.version.number == 1)
        #expect(decide(&gate, MeshFixtures.projection(3)) == "apply")
    }
}

@Suite struct LastGoodTests {
    @Test func itIsReplacedWholeAndPrivate() throws {
        let folder = TemporaryFolder()
        let file = LastGoodFile(folder: folder.path)
        #expect(try file.read() == nil)
        var lastGood = LastGood(role: .agent, agent: "finbert", join: MeshFixtures.join(7))
        try file.write(lastGood)
        #expect(try file.read() == lastGood)
        var information = stat()
        #expect(stat(file.path, &information) == 0)
        #expect(information.st_mode & 0o777 == 0o600)
        // A left-over of a crash is no obstacle.
        close(open(file.path + ".new", O_CREAT | O_WRONLY, 0o644))
        lastGood.projection = MeshFixtures.projection(3)
        lastGood.projectionHash = "ab"
        try file.write(lastGood)
        #expect(try file.read() == lastGood)
        #expect(access(file.path + ".new", F_OK) != 0)
    }

    @Test func whatOthersCanReadIsNotUsed() throws {
        let folder = TemporaryFolder()
        let file = LastGoodFile(folder: folder.path)
        try file.write(LastGood(role: .gateway, agent: nil, join: MeshFixtures.join(7)))
        chmod(file.path, 0o640)
        #expect(throws: (any Error).self) { try file.read() }
    }

    @Test(arguments: ["", "{", "{\"format\":2}", "[]", "null"])
    func whatIsNotUnderstoodIsAnError(text: String) throws {
        let folder = TemporaryFolder()
        let file = LastGoodFile(folder: folder.path)
        let raw = open(file.path, O_CREAT | O_WRONLY, 0o600)
        _ = text.withCString { Glibc.write(raw, $0, text.utf8.count) }
        close(raw)
        #expect(throws: (any Error).self) { try file.read() }
    }

    @Test func aFolderThatIsNotThereIsAnError() {
        let file = LastGoodFile(folder: "/nonexistent-weir")
        #expect(throws: (any Error).self) {
            try file.write(LastGood(role: .gateway, agent: nil, join: MeshFixtures.join(7)))
        }
    }
}
