/// What a client may send for which stream, as far as it depends on streams that are over (RFC 9113
/// §5.1, §5.1.1) or on what priorities used to be (RFC 7540 §5.3.1). nghttp2 judges the rest.
///
/// A stream that the client has ended may get nothing more, but one that we have reset may: what
/// was on its way then is passed over. So it is remembered of the last streams who ended them.
package struct ClientStreamOrder {
    package enum Fault: UInt32, Sendable {
        case protocolError = 1
        case streamClosed = 5
    }

    private static let data: UInt8 = 0
    private static let headers: UInt8 = 1
    private static let priority: UInt8 = 2

    private var highest: UInt32 = 0
    /// Numbers of clients' streams are odd; here the last bit says that we ended it.
    private var ended: ContiguousArray<UInt32> = []
    /// What is overwritten next, once there are as many as are kept.
    private var oldest = 0
    /// The highest of those that fell out of `ended`.
    private var forgotten: UInt32 = 0

    package init() {}

    /// Whether `fault` has to be asked. Takes note of the streams that begin.
    package mutating func mayBeLate(_ head: FrameHeads.Head) -> Bool {
        switch head.type {
        case Self.headers where head.stream > highest:
            // nghttp2 refuses even numbers.
            if head.stream & 1 == 1 { highest = head.stream }
            return false
        case Self.headers, Self.data: return head.stream & 1 == 1 && head.stream <= highest
        case Self.priority: return true
        default: return false
        }
    }

    /// `isOpen` says whether the stream still is, when all frames before this one have been read.
    package func fault(of head: FrameHeads.Head, isOpen: Bool) -> Fault? {
        if head.type == Self.priority {
            return head.stream == 0 || head.stream == head.dependency ? .protocolError : nil
        }
        if isOpen { return nil }
        let known = ended.lazy.filter { $0 | 1 == head.stream }
        if !known.isEmpty { return known.contains(head.stream) ? nil : .streamClosed }
        if head.stream <= forgotten { return nil }
        return head.type == Self.headers ? .protocolError : .streamClosed
    }

    /// The first word counts: a stream that we reset is closed then, too.
    package mutating func closed(_ stream: Int32, byUs: Bool) {
        let entry = UInt32(stream) & ~1 | (byUs ? 1 : 0)
        let newest = oldest > 0 ? ended[oldest - 1] : ended.last
        guard newest.map({ $0 | 1 }) != entry | 1 else { return }
        guard ended.count >= HTTP2ServerLimits.closedStreamsMax else { return ended.append(entry) }
        forgotten = max(forgotten, ended[oldest] | 1)
        ended[oldest] = entry
        oldest = oldest + 1 == ended.count ? 0 : oldest + 1
    }
}
