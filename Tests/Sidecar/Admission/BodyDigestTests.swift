import Glibc
import Testing
import WeirCore
import WeirCrypto
import WeirMeshProtocol
import WeirPolicy

@testable import SidecarCore

/// The digests of a record are those of the bytes that the caller sent and the agent answered, in
/// whichever way they travelled.
@Suite struct BodyDigestTests {
    /// An agent whose bodies pass without being held.
    private static let streaming = AdmissionFixture.openAI { $0.wireProtocol = .passthrough }
    private static let fixedPrice = AdmissionFixture.price { price in
        price.tokens = ModelPrice(model: "llama-2").tokens
        price.perRequest = NanoUSD(5)
    }

    private func expect(
        _ record: AttemptRecord?, _ input: [UInt8], _ output: [UInt8],
        sourceLocation: SourceLocation = #_sourceLocation
    ) {
        #expect(
            record?.digests?.input.bytes == Crypto.sha256(input), sourceLocation: sourceLocation)
        #expect(
            record?.digests?.output.bytes == Crypto.sha256(output), sourceLocation: sourceLocation)
    }

    private static func chunked(_ parts: [[UInt8]]) -> [UInt8] {
        parts.flatMap { part in
            Array("\(String(part.count, radix: 16))\r\n".utf8) + part + Array("\r\n".utf8)
        } + Array("0\r\n\r\n".utf8)
    }

    @Test func ofTheCallersBodyThoughTheAgentGetsAnother() throws {
        let upstream = try TestUpstream { _ in okay(chatAnswer) }
        let fixture = try AdmissionFixture(upstream.address)
        let client = fixture.proxy.client()
        for child: Int64 in 1...3 {
            client.send(chatRequest(fixture.delegation(child: child)))
            #expect(client.readResponse()?.status == 200)
        }
        #expect(upstream.lastRequest?.body != Array(chat.utf8))
        for record in fixture.waitForRecords(3) {
            expect(record, Array(chat.utf8), Array(chatAnswer.utf8))
        }
    }

    @Test func ofChunkedAndCodedBodies() throws {
        // As a compressed body: bytes that are no text.
        let coded = (0..<70_000).map { UInt8(truncatingIfNeeded: $0 &* $0) }
        let upstream = try TestUpstream { _, socket in
            while socket.readRequest() != nil {
                socket.send(
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
                        + "Content-Encoding: gzip\r\n\r\n")
                socket.send(
                    Self.chunked([
                        Array(coded[..<1]), Array(coded[1..<40_000]), Array(coded[40_000...]),
                    ]))
            }
        }
        let fixture = try AdmissionFixture(
            upstream.address, agent: Self.streaming, price: Self.fixedPrice)
        let client = fixture.proxy.client()
        let body = (0..<200_000).map { UInt8(truncatingIfNeeded: $0 / 3) }
        client.send(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
                + fixture.delegation(child: 1) + "\r\n")
        client.send(Self.chunked([Array(body[..<7]), Array(body[7...])]))
        let response = try #require(client.readResponse())
        #expect(response.body == coded && response["content-encoding"] == "gzip")
        expect(fixture.waitForRecords(1).first, body, coded)
    }

    @Test func ofBodiesWithoutBytes() throws {
        let upstream = try TestUpstream { _ in "HTTP/1.1 204 No Content\r\n\r\n" }
        let fixture = try AdmissionFixture(
            upstream.address, agent: Self.streaming, price: Self.fixedPrice)
        let client = fixture.proxy.client()
        client.send(chatRequest(fixture.delegation(child: 1), ""))
        #expect(client.readResponse()?.status == 204)
        expect(fixture.waitForRecords(1).first, [], [])
    }

    /// What came of an answer that broke off is what is recorded.
    @Test func ofAnAnswerThatBrokeOff() throws {
        let upstream = try TestUpstream { _, socket in
            while socket.readRequest() != nil {
                socket.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
                return
            }
        }
        let fixture = try AdmissionFixture(
            upstream.address, agent: Self.streaming, price: Self.fixedPrice)
        let client = fixture.proxy.client()
        client.send(chatRequest(fixture.delegation(child: 1), "question"))
        #expect(client.readResponse()?.isWhole == false)
        expect(fixture.waitForRecords(1).first, Array("question".utf8), Array("half".utf8))
    }

    @Test func noneWhereNothingWentUpstreamOrThePolicyWantsNone() throws {
        let upstream = try TestUpstream { _ in okay(chatAnswer) }
        let refused = try AdmissionFixture(upstream.address)
        let client = refused.proxy.client()
        client.send(chatRequest(refused.delegation(child: 1, amount: 100)))
        #expect(client.readResponse()?.status == 402)
        #expect(refused.waitForRecords(1).first?.digests == nil)

        let without = try AdmissionFixture(
            upstream.address, agent: AdmissionFixture.openAI { $0.bodyDigests = false })
        let other = without.proxy.client()
        other.send(chatRequest(without.delegation(child: 1)))
        #expect(other.readResponse()?.status == 200)
        let record = try #require(without.waitForRecords(1).first)
        #expect(record.digests == nil && record.byteCount == AttemptRecord.shortByteCount)
    }
}
