import Testing
import WeirCore

@testable import SidecarCore

/// The words of gRPC: pure, without a connection.
@Suite struct GRPCTests {
    private func withBytes<Result>(
        _ text: String, _ body: (UnsafeRawBufferPointer) -> Result
    ) -> Result {
        Array(text.utf8).withUnsafeBytes(body)
    }

    @Test(arguments: [
        ("application/grpc", true), ("application/grpc+proto", true),
        ("Application/gRPC; x=1", true), ("application/grpc-web", false),
        ("application/grpc-web+proto", false), ("application/json", false), ("", false),
    ])
    func contentTypes(_ text: String, _ isGRPC: Bool) {
        #expect(withBytes(text, GRPC.isContentType) == isGRPC)
    }

    @Test(
        arguments: [
            ("1H", 3_600_000_000_000), ("2M", 120_000_000_000), ("3S", 3_000_000_000),
            ("100m", 100_000_000), ("5u", 5_000), ("7n", 7), ("99999999H", .max),
            ("", nil), ("m", nil), ("100", nil), ("-1S", nil), ("1.5S", nil), ("123456789S", nil),
            ("1 S", nil), ("1s", nil),
        ] as [(String, UInt64?)])
    func timeouts(_ text: String, _ nanoseconds: UInt64?) {
        let bytes = Array("POST / HTTP/1.1\r\nhost: a\r\ngrpc-timeout: \(text)\r\n\r\n".utf8)
        let fields = UnsafeMutablePointer<HTTPField>.allocate(capacity: Limits.fieldsMax)
        defer { fields.deallocate() }
        bytes.withUnsafeBytes { bytes in
            var head = HTTPHead(base: UnsafeRawPointer(fields), fields: fields)
            let result = HeadParser.parseRequest(bytes, fields: fields, into: &head)
            #expect(result == .complete(bytes.count))
            #expect(GRPC.timeoutNanoseconds(head) == nanoseconds)
        }
    }

    @Test func messagesAreEncoded() {
        #expect(GRPC.encoded("The budget is 100% spent.") == "The budget is 100%25 spent.")
        #expect(GRPC.encoded("a\r\nb é") == "a%0D%0Ab %C3%A9")
    }

    @Test(
        arguments: [
            ("0", .ok), ("14", .unavailable), ("16", .unauthenticated), ("17", nil), ("-1", nil),
            ("014", nil), ("", nil), ("x", nil),
        ] as [(String, GRPCStatus?)])
    func statuses(_ text: String, _ status: GRPCStatus?) {
        #expect(withBytes(text) { GRPCStatus($0) } == status)
    }

    /// What callers do with a refusal hangs on its code.
    @Test(arguments: [
        (Reason.unauthenticated, GRPCStatus.unauthenticated), (.tokenExpired, .unauthenticated),
        (.budgetExhausted, .resourceExhausted), (.rateLimited, .resourceExhausted),
        (.quotaExhausted, .resourceExhausted), (.concurrency, .resourceExhausted),
        (.agentNotAllowed, .permissionDenied), (.forbidden, .permissionDenied),
        (.unknownRoute, .unimplemented), (.unknownAgent, .unimplemented),
        (.notImplemented, .unimplemented), (.circuitOpen, .unavailable),
        (.overloaded, .unavailable), (.noEndpoint, .unavailable), (.upstreamError, .unavailable),
        (.upstreamProtocol, .internalError), (.deadline, .deadlineExceeded),
        (.malformed, .invalidArgument), (.cancelled, .cancelled),
    ])
    func reasons(_ reason: Reason, _ status: GRPCStatus) {
        #expect(GRPCStatus(reason) == status)
    }

    // MARK: Counting

    private func count(
        _ calls: [(path: String, status: GRPCStatus, isServed: Bool)]
    ) -> [[String]: UInt64] {
        let registry = Metrics()
        let metrics = SidecarMetrics(registry)
        var series = GRPCSeries(metrics, shard: registry.shard(), agent: "a")
        for call in calls {
            withBytes(call.path) { series.ended($0, call.status, isServed: call.isServed) }
        }
        return Dictionary(
            uniqueKeysWithValues: registry.read(metrics.grpcCalls).map {
                ($0.labels, $0.values[0])
            })
    }

    @Test func callsAreCountedByMethodAndStatus() {
        let counts = count([
            ("/p.S/Get", .ok, true), ("/p.S/Get", .ok, true), ("/p.S/Get", .unavailable, false),
            ("/p.S/Put", .internalError, true),
        ])
        #expect(
            counts == [
                ["a", "p.S/Get", "OK"]: 2, ["a", "p.S/Get", "UNAVAILABLE"]: 1,
                ["a", "p.S/Put", "INTERNAL"]: 1,
            ])
    }

    /// Callers can name as many methods as they like.
    @Test func onlyWhatAnAgentServesGetsALabel() {
        var calls: [(path: String, status: GRPCStatus, isServed: Bool)] = [
            ("/p.S/Refused", .unavailable, false), ("/p.S/Unknown", .unimplemented, true),
            ("/no-method", .ok, true), ("/p.S/a\"b", .ok, true), ("/", .ok, true), ("", .ok, true),
            ("/" + String(repeating: "x", count: 200) + "/M", .ok, true),
        ]
        #expect(Set(count(calls).keys.map { $0[1] }) == ["other"])
        calls = (0..<500).map { ("/p.S/M\($0)", .ok, true) }
        let counts = count(calls)
        #expect(counts.count == GRPCSeries.methodsMax + 1)
        #expect(counts[["a", "other", "OK"]] == UInt64(500 - GRPCSeries.methodsMax))
    }
}
