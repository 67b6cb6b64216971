import Testing

@testable import SidecarCore

/// Which frames come too late, as a rule without a connection.
@Suite struct ClientStreamOrderTests {
    private static func head(_ type: UInt8, _ stream: UInt32) -> FrameHeads.Head {
        FrameHeads.Head(type: type, flags: 0, stream: stream, dependency: nil, byteCount: 9)
    }

    /// A client that has opened streams up to `highest`.
    private static func order(upTo highest: UInt32) -> ClientStreamOrder {
        var order = ClientStreamOrder()
        let isLate = order.mayBeLate(head(1, highest))
        #expect(!isLate)
        return order
    }

    @Test func whoEndedAStreamDecides() {
        var order = Self.order(upTo: 9)
        order.closed(1, byUs: false)
        order.closed(3, byUs: true)
        // nghttp2 closes it behind our reset.
        order.closed(3, byUs: false)
        for type: UInt8 in [0, 1] {
            #expect(order.fault(of: Self.head(type, 1), isOpen: false) == .streamClosed)
            #expect(order.fault(of: Self.head(type, 3), isOpen: false) == nil)
            #expect(order.fault(of: Self.head(type, 9), isOpen: true) == nil)
        }
        #expect(order.fault(of: Self.head(1, 7), isOpen: false) == .protocolError)
        #expect(order.fault(of: Self.head(0, 7), isOpen: false) == .streamClosed)
    }

    @Test func onlyWhatIsNotNewIsAskedFor() {
        var order = Self.order(upTo: 5)
        func asks(_ type: UInt8, _ stream: UInt32) -> Bool {
            order.mayBeLate(Self.head(type, stream))
        }
        // Idle and even ones are nghttp2's; other frames may come late.
        let cases: [(UInt8, UInt32, Bool)] = [
            (1, 5, true), (0, 3, true), (0, 7, false), (1, 7, false), (1, 7, true), (0, 4, false),
            (3, 5, false), (8, 1, false), (2, 9, true),
        ]
        for (type, stream, expected) in cases { #expect(asks(type, stream) == expected) }
    }

    @Test func whatIsForgottenIsPassedOver() {
        let count = HTTP2ServerLimits.closedStreamsMax
        var order = Self.order(upTo: UInt32(4 * count + 1))
        for index in 0..<(count + 10) { order.closed(Int32(2 * index + 1), byUs: index % 2 == 1) }
        #expect(order.fault(of: Self.head(0, 19), isOpen: false) == nil)
        #expect(order.fault(of: Self.head(1, 1), isOpen: false) == nil)
        #expect(order.fault(of: Self.head(0, 21), isOpen: false) == .streamClosed)
        #expect(order.fault(of: Self.head(0, 23), isOpen: false) == nil)
        let last = UInt32(2 * (count + 9) + 1)
        #expect(order.fault(of: Self.head(0, last - 2), isOpen: false) == .streamClosed)
        #expect(order.fault(of: Self.head(0, last), isOpen: false) == nil)
    }

    @Test func headsAreFoundInAnyPieces() {
        let bytes =
            [UInt8](repeating: 9, count: 24)
            + HTTP2Wire.frame(4, []) + HTTP2Wire.frame(1, flags: 5, stream: 1, [1, 2, 3])
            + HTTP2Wire.frame(2, stream: 0x8000_0003, [0x80, 0, 0, 1, 7])
            + HTTP2Wire.frame(2, stream: 3, [1]) + HTTP2Wire.frame(0, stream: 1, [])
        func heads(_ pieces: [ArraySlice<UInt8>]) -> [FrameHeads.Head] {
            var scan = FrameHeads(skipping: 24)
            var found: [FrameHeads.Head] = []
            for piece in pieces {
                piece.withUnsafeBytes { bytes in
                    var offset = 0
                    while let head = scan.next(bytes, from: &offset) { found.append(head) }
                    #expect(offset == bytes.count)
                }
            }
            return found
        }
        let whole = heads([bytes[...]])
        #expect(whole.map(\.type) == [4, 1, 2, 2, 0])
        #expect(whole.map(\.stream) == [0, 1, 3, 3, 1])
        #expect(whole.map(\.dependency) == [nil, nil, 1, nil, nil])
        #expect(heads(bytes.indices.map { bytes[$0...$0] }) == whole)
        for cut in bytes.indices { #expect(heads([bytes[..<cut], bytes[cut...]]) == whole) }
    }
}
