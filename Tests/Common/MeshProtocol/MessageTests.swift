import Testing
import WeirCore
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

@Suite struct MessageTests {
    private func roundTrip<Message: Codable & Equatable>(_ message: Message) throws {
        let bytes = try JSON.encode(message)
        #expect(try JSON.decode(Message.self, from: bytes) == message)
    }

    @Test func joinComesBack() throws {
        var request = JoinRequest(
            credential: "token", role: .agent, agent: "finbert", endpoint: "127.0.0.1:9001",
            instance: "pod-1",
            predecessor: JoinRequest.Predecessor(incarnation: Incarnation(11), proof: "cHJvb2Y"))
        try roundTrip(request)
        request.predecessor = nil
        request.agent = nil
        request.endpoint = nil
        request.role = .gateway
        try roundTrip(request)
        try roundTrip(Samples.join)
    }

    @Test func policyComesBack() throws {
        try roundTrip(Samples.projection)
        try roundTrip(PolicyEvent.projection(hash: "00ff", Samples.projection))
        try roundTrip(PolicyEvent.bookmark(Samples.version))
        try roundTrip(PolicyEvent.recall([Samples.lease]))
        try roundTrip(PolicyEvent.subjects(["ann", "bob"]))
        try roundTrip(
            PolicyAck(
                version: Samples.version, projectionHash: "00ff", applied: false,
                problems: [Problem(path: "/documents/0", message: "is wrong")]))
    }

    @Test func leasesComeBack() throws {
        let acquire = LeaseAcquire(
            lease: Samples.lease, account: Samples.account, need: NanoUSD(1), want: NanoUSD(2),
            closedBelow: 4, policyNumber: 17)
        try roundTrip(LeasesRequest(acquire: [acquire], release: [Samples.counters]))
        for status in [
            LeaseGrant.Status.granted, .exhausted, .contended, .gone, .stalePolicy, .wrongPeriod,
            .unknownAccount, .unavailable,
        ] {
            let grant = LeaseGrant(
                lease: Samples.lease, status: status, granted: NanoUSD(2),
                expiresInMilliseconds: 60_000, state: status == .granted ? Samples.state : nil)
            try roundTrip(LeasesResponse(grants: [grant], epoch: 9))
        }
    }

    @Test func reportsComeBack() throws {
        try roundTrip(
            Report(
                highestLease: 9, leases: [Samples.counters], childFinals: [Samples.final],
                acknowledgedFinals: [Samples.child], openChildren: [Samples.openChild],
                health: SidecarHealth(
                    state: .degraded, reasons: ["journal"], requestsInFlight: 3,
                    journalBytes: 1 << 40), epoch: 7))
        try roundTrip(
            ReportResponse(
                finals: [Samples.final], recalls: [Samples.lease], unknown: [Samples.unknown],
                states: [Samples.state], inquiries: [Samples.openChild], epoch: 8))
        try roundTrip(RecordsResponse(storedThrough: .max))
    }

    @Test func usersRequestsComeBack() throws {
        let subject = UserRequest.Subject(
            user: "alice", tenant: "acme", tier: "gold", roles: ["operator", "dancer"])
        try roundTrip(UserRequest(subject: subject))
        try roundTrip(
            UserRequest(subject: subject, parameters: ["by": "day"], body: ["a": [1, .null]]))
        try roundTrip(
            MeshRefusal(
                reason: "invalid", detail: "no",
                problems: [Problem(path: "/user", message: "is wrong")]))
        #expect(subject.role == .operator)
        #expect([String]().highestRole == .user)
        #expect(UserRole.allCases == UserRole.allCases.sorted())
    }

    @Test func subjectsAndAnswersComeBack() throws {
        let claims = SubjectRequest.Claims(
            subject: "alice", tier: nil, tenant: "acme", roles: ["user", "operator"])
        try roundTrip(SubjectRequest(claims: claims, apiKeyHash: nil))
        try roundTrip(SubjectRequest(claims: nil, apiKeyHash: "00ff"))
        try roundTrip(Samples.binding)
        try roundTrip(
            IdempotencyRequest(
                user: "alice", key: "k", bodyHash: "00", claim: "req_1",
                action: .complete(Samples.storedAnswer)))
        for action in [IdempotencyRequest.Action.claim(milliseconds: 7), .release] {
            try roundTrip(
                IdempotencyRequest(
                    user: "alice", key: "k", bodyHash: "00", claim: "req_1", action: action))
        }
        for state in [IdempotencyResponse.State.new, .stored, .mismatch, .inFlight] {
            try roundTrip(IdempotencyResponse(state: state, answer: nil))
        }
        try roundTrip(MeshRefusal(reason: "unauthenticated", detail: "the session is not known"))
    }

    @Test func largeNumbersAreExact() throws {
        let counters = LeaseCounters(
            lease: LeaseID(incarnation: Incarnation(.max), number: .max), account: Samples.account,
            consumed: NanoUSD(.max), released: NanoUSD((1 << 53) + 1))
        try roundTrip(counters)
        let text = String(decoding: try JSON.encode(counters), as: UTF8.self)
        // Amounts are strings, because readers that count in doubles would change them.
        #expect(text.contains("\"9007199254740993\""))
    }

    @Test func unknownFieldsAreLeftAlone() throws {
        let text = """
            {"storedThrough": 5, "later": {"version": 2}}
            """
        #expect(
            try JSON.decode(RecordsResponse.self, from: Array(text.utf8))
                == RecordsResponse(storedThrough: 5))
    }

    @Test(arguments: [
        "{}", "[]", "null", "{\"storedThrough\": \"5\"}", "{\"storedThrough\": -1}",
        "{\"storedThrough\": 1.5}", "{\"storedThrough\": 18446744073709551616}",
        "{\"storedThrough\": null}",
    ])
    func missingAndWrongFieldsAreErrors(text: String) {
        #expect(throws: (any Error).self) {
            try JSON.decode(RecordsResponse.self, from: Array(text.utf8))
        }
    }

    /// Every member that is taken away is either optional or an error that names it.
    @Test func eachMissingMemberIsNamed() throws {
        let whole = try #require(
            try JSON.encodeValue(
                LeaseAcquire(
                    lease: Samples.lease, account: Samples.account, need: NanoUSD(1),
                    want: NanoUSD(2), closedBelow: 4, policyNumber: 17)
            ).object)
        #expect(whole.count == 6)
        for key in whole.keys {
            var part = whole
            part[key] = nil
            do {
                _ = try JSON.decode(LeaseAcquire.self, from: .object(part))
                Issue.record("\(key) was not missed")
            } catch {
                #expect(JSON.problem(from: error).message.contains(key))
            }
        }
    }

    @Test func anUnknownKindOfLineIsAnError() {
        let line = Array("{\"type\": \"delta\"}".utf8)
        #expect(throws: (any Error).self) { try JSON.decode(PolicyEvent.self, from: line) }
    }

    /// What a caller is called comes from outside: a name that joins with the slash before it, or
    /// holds slashes, must not make a whole message unreadable.
    @Test(arguments: ["\u{301}alice", "a/b//c", "\u{FE0F}", "é", "\r\n", "-", "日本"])
    func accountsOfAnyNameComeBack(id: String) throws {
        var account = Samples.account
        account.id = id
        let back = try #require(AccountKey(account.description))
        #expect(Array(back.id.utf8) == Array(id.utf8))
        #expect(back == account)
    }

    @Test(arguments: ["", "usd", "usd/user/2026-11", "usd/user/2026-11/", "eur/user/2026-11/a"])
    func textsThatAreNoAccount(text: String) {
        #expect(AccountKey(text) == nil)
    }

    /// The form on the wire, so that it cannot change by accident.
    @Test func goldenMessages() throws {
        let report = Report(
            highestLease: 9, leases: [Samples.counters], childFinals: [Samples.final],
            acknowledgedFinals: [Samples.child], openChildren: [Samples.openChild],
            health: SidecarHealth(
                state: .serving, reasons: [], requestsInFlight: 3, journalBytes: 4))
        #expect(
            String(decoding: try JSON.encodeValue(report).canonicalBytes, as: UTF8.self)
                == """
                {"acknowledgedFinals":[{"child":3,"lease":"12.7"}],\
                "childFinals":[{"consumed":"7","key":{"child":3,"lease":"12.7"}}],\
                "health":{"journalBytes":4,"reasons":[],"requestsInFlight":3,"state":"serving"},\
                "highestLease":9,"leases":[{"account":"usd/user/2025-11/alice","consumed":"5",\
                "lease":"12.7","released":"6"}],\
                "openChildren":[{"audience":34,"key":{"child":3,"lease":"12.7"}}]}
                """)
        let line = PolicyEvent.bookmark(Samples.version)
        #expect(
            String(decoding: try JSON.encodeValue(line).canonicalBytes, as: UTF8.self)
                == """
                {"type":"bookmark","version":{"epoch":1,"hash":"ab12","number":17}}
                """)
    }
}
