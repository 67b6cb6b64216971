import Testing

@testable import SidecarCore

/// The session without sockets: what it writes and how it takes what a peer may send.
@Suite struct HTTP2ClientSessionTests {
    private static let preface = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8)

    private func output(_ session: HTTP2ClientSession) throws -> [UInt8] {
        var bytes: [UInt8] = []
        while try session.takeOutput({ bytes.append(contentsOf: $0) }) {}
        return bytes
    }

    private func receive(_ session: HTTP2ClientSession, _ bytes: [UInt8]) throws -> [HTTP2Event] {
        var failure: HTTP2Error?
        bytes.withUnsafeBytes { raw in
            do throws(HTTP2Error) { try session.receive(raw) } catch { failure = error }
        }
        if let failure { throw failure }
        return session.takeEvents()
    }

    /// RFC 9113 §4.1.
    private func frame(_ type: UInt8, flags: UInt8 = 0, stream: UInt32, _ payload: [UInt8])
        -> [UInt8]
    {
        let count = payload.count
        return [UInt8(count >> 16 & 255), UInt8(count >> 8 & 255), UInt8(count & 255), type, flags]
            + [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: stream >> UInt32($0)) } + payload
    }

    private var settings: [UInt8] { frame(4, stream: 0, []) }
    /// ":status: 200" of HPACK's static table.
    private var status200: [UInt8] { [0x88] }

    private func opened() throws -> (HTTP2ClientSession, stream: Int32) {
        let session = try HTTP2ClientSession()
        _ = try receive(session, settings)
        let stream = try session.submit(
            HTTP2RequestHead(method: "GET", authority: "a", path: "/"))
        _ = try output(session)
        return (session, stream)
    }

    @Test func beginsWithPrefaceAndSettings() throws {
        let session = try HTTP2ClientSession()
        let bytes = try output(session)
        #expect(bytes.starts(with: Self.preface))
        // A SETTINGS frame follows at once (§3.4).
        #expect(bytes[Self.preface.count + 3] == 4)
        #expect(try receive(session, settings) == [.settings])
    }

    @Test func anExchange() throws {
        let (session, stream) = try opened()
        let events = try receive(
            session,
            frame(1, flags: 4, stream: 1, status200) + frame(0, stream: 1, [1, 2])
                + frame(0, flags: 1, stream: 1, [3]))
        #expect(
            events == [
                .head(stream: stream, status: 200, fields: []),
                .data(stream: stream, [1, 2]), .data(stream: stream, [3]),
                .closed(stream: stream, errorCode: 0),
            ])
    }

    @Test func informationalHeadsAndTrailers() throws {
        let (session, stream) = try opened()
        // :status 103 as a literal without indexing.
        let status103: [UInt8] = [0x08, 0x03] + Array("103".utf8)
        let trailer: [UInt8] = [0x00, 0x01] + Array("t".utf8) + [0x01] + Array("v".utf8)
        let events = try receive(
            session,
            frame(1, flags: 4, stream: 1, status103) + frame(1, flags: 4, stream: 1, status200)
                + frame(1, flags: 5, stream: 1, trailer))
        #expect(
            events == [
                .head(stream: stream, status: 200, fields: []),
                .trailers(stream: stream, fields: [HTTP2Field("t", "v")]),
                .closed(stream: stream, errorCode: 0),
            ])
    }

    @Test func aBodyIsSentAsTheWindowAllows() throws {
        let session = try HTTP2ClientSession()
        _ = try receive(session, settings)
        _ = try output(session)
        let body = [UInt8](repeating: 7, count: 100_000)
        _ = try session.submit(
            HTTP2RequestHead(method: "POST", authority: "a", path: "/"), body: body)
        // The peer's windows begin with 65,535 bytes (§6.9.2).
        let first = try output(session).count
        #expect((65_535..<67_000).contains(first))
        let increment: [UInt8] = [0, 1, 0, 0]
        _ = try receive(
            session, frame(8, stream: 0, increment) + frame(8, stream: 1, increment))
        let second = try output(session).count
        #expect((34_465..<36_000).contains(second))
    }

    @Test func windowsOpenOnlyWhenDataIsConsumed() throws {
        var limits = HTTP2Limits()
        limits.streamWindowBytes = 65_535
        let session = try HTTP2ClientSession(limits: limits)
        _ = try receive(session, settings)
        let stream = try session.submit(
            HTTP2RequestHead(method: "GET", authority: "a", path: "/"))
        _ = try output(session)
        let piece = frame(0, stream: 1, [UInt8](repeating: 1, count: 16_384))
        _ = try receive(session, frame(1, flags: 4, stream: 1, status200))
        for _ in 0..<3 { _ = try receive(session, piece) }
        #expect(try output(session) == [], "no window update without a consumer")
        session.consume(stream: stream, 49_152)
        let update = try output(session)
        #expect(update.count >= 13 && update[3] == 8, "a WINDOW_UPDATE frame")
    }

    @Test func aPeerThatIgnoresTheWindowIsCutOff() throws {
        var limits = HTTP2Limits()
        limits.streamWindowBytes = 65_535
        let session = try HTTP2ClientSession(limits: limits)
        _ = try receive(session, settings)
        _ = try session.submit(HTTP2RequestHead(method: "GET", authority: "a", path: "/"))
        _ = try output(session)
        // Settings of ours count when they are acknowledged.
        _ = try receive(
            session, frame(4, flags: 1, stream: 0, []) + frame(1, flags: 4, stream: 1, status200))
        let piece = frame(0, stream: 1, [UInt8](repeating: 1, count: 16_384))
        var bytes = 0
        var isReset = false
        for _ in 0..<8 {
            for event in try receive(session, piece) {
                if case .data(_, let data) = event { bytes += data.count }
            }
            let answered = try output(session).contains(3)
            isReset = isReset || answered
        }
        // The frame that breaks the window is passed on, the next one is not.
        #expect(bytes <= 65_535 + 16_384)
        #expect(isReset)
    }

    @Test func tooManyHeadersResetTheStream() throws {
        var limits = HTTP2Limits()
        limits.fieldsMax = 3
        let session = try HTTP2ClientSession(limits: limits)
        _ = try receive(session, settings)
        let stream = try session.submit(
            HTTP2RequestHead(method: "GET", authority: "a", path: "/"))
        _ = try output(session)
        let field: [UInt8] = [0x00, 0x01] + Array("t".utf8) + [0x01] + Array("v".utf8)
        let block = status200 + field + field + field + field
        _ = try receive(session, frame(1, flags: 4, stream: 1, block))
        #expect(try output(session).count >= 13)
        guard case .closed(stream, let code)? = session.takeEvents().last else {
            Issue.record("the stream is not closed")
            return
        }
        #expect(code != 0)
    }

    @Test func pingsGoodbyesAndCancels() throws {
        let (session, stream) = try opened()
        session.ping(0x0102_0304_0506_0708)
        let ping = try output(session)
        #expect(ping[3] == 6)
        #expect(
            try receive(session, frame(6, flags: 1, stream: 0, Array(ping.suffix(8))))
                == [.pong(0x0102_0304_0506_0708)])
        session.cancel(stream: stream)
        #expect(try output(session)[3] == 3)
        #expect(session.takeEvents() == [.closed(stream: stream, errorCode: 8)])
        let goAway = frame(7, stream: 0, [0, 0, 0, 0, 0, 0, 0, 2])
        #expect(try receive(session, goAway) == [.goAway(lastStream: 0, errorCode: 2)])
        #expect(throws: HTTP2Error.self) {
            try session.submit(HTTP2RequestHead(method: "GET", authority: "a", path: "/"))
        }
    }

    @Test func whatIsNoHTTP2IsAnError() throws {
        let session = try HTTP2ClientSession()
        _ = try output(session)
        #expect(!session.isFinished)
        #expect(try receive(session, Array("HTTP/1.1 400 Bad Request\r\n\r\n".utf8)) == [])
        #expect(try output(session)[3] == 7, "GOAWAY says why")
        #expect(session.isFinished)
    }

    @Test func floodsOfPingsAreAnError() throws {
        let (session, _) = try opened()
        let flood = (0..<1_000).flatMap { _ in
            frame(6, stream: 0, [UInt8](repeating: 0, count: 8))
        }
        #expect(throws: HTTP2Error.self) { try receive(session, flood) }
    }

    /// More requests than the peer allows wait inside; after a GOAWAY they must not wait for ever.
    @Test func requestsThatNeverLeftAreClosedByAGoodbye() throws {
        let session = try HTTP2ClientSession()
        let one: [UInt8] = [0, 3, 0, 0, 0, 1]  // SETTINGS_MAX_CONCURRENT_STREAMS = 1
        _ = try receive(session, frame(4, stream: 0, one))
        let head = HTTP2RequestHead(method: "GET", authority: "a", path: "/")
        let first = try session.submit(head)
        let second = try session.submit(head)
        _ = try output(session)
        _ = try receive(session, frame(7, stream: 0, [0, 0, 0, 1, 0, 0, 0, 0]))
        _ = try receive(session, frame(1, flags: 5, stream: 1, status200))
        _ = try output(session)
        let closed = session.takeEvents()
        #expect(closed == [.closed(stream: second, errorCode: 7)])
        #expect(first == 1)
    }

    @Test func outgoingBodiesAreBounded() throws {
        var limits = HTTP2Limits()
        limits.outgoingBytesMax = 10
        let session = try HTTP2ClientSession(limits: limits)
        let head = HTTP2RequestHead(method: "POST", authority: "a", path: "/")
        _ = try session.submit(head, body: [UInt8](repeating: 0, count: 10))
        #expect(throws: HTTP2Error.outgoingFull) { try session.submit(head, body: [1]) }
    }

    /// No bytes whatever trap; the generator is seeded so that a failure comes back.
    @Test(arguments: UInt64(1)...20)
    func randomFramesNeverTrap(seed: UInt64) throws {
        var state = seed
        func next(_ bound: UInt64) -> UInt64 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return (state >> 33) % bound
        }
        for _ in 0..<50 {
            let (session, _) = try opened()
            for _ in 0..<10 {
                let payload = (0..<next(40)).map { _ in UInt8(next(256)) }
                let bytes = frame(
                    UInt8(next(11)), flags: UInt8(next(256)), stream: UInt32(next(4)), payload)
                do { _ = try receive(session, bytes) } catch { break }
                _ = try? output(session)
                _ = session.takeEvents()
            }
        }
    }
}
