/// Finds the boundaries of a chunked body (RFC 9112 §7.1) in whatever pieces it arrives. The data
/// is not copied: an event says where in the given bytes it lies. Extensions are checked, counted
/// and forgotten; we frame the body anew for the next hop, so that no oddity of a sender travels
/// on.
package struct ChunkedDecoder {
    package enum Event: Equatable {
        /// Data at this offset of the given bytes, so many of them.
        case data(offset: Int, count: Int)
        /// The body and its trailers are over; the next message begins at the offset.
        case end(offset: Int)
        /// All given bytes are used up.
        case needsMore
        case malformed
        case tooLarge
    }

    private enum State {
        case size, sizeSpace, extensions, sizeLineFeed, data, dataReturn, dataLineFeed, trailers,
            done
    }

    private var state = State.size
    private var digits = 0
    private var remaining: UInt64 = 0
    private var lineBytes = 0
    private var extensionBytes = 0
    private var grammar = ChunkExtension()
    /// The trailer section as it came, with its empty line; empty when there was none.
    package private(set) var trailers: [UInt8] = []

    package init() {}

    /// Goes on at `offset`, and leaves `offset` behind what the event covers.
    package mutating func next(
        _ bytes: UnsafeRawBufferPointer, from offset: inout Int
    ) -> Event {
        while offset < bytes.count {
            if case .data = state { return takeData(bytes, &offset) }
            let byte = bytes[offset]
            offset += 1
            if let event = step(byte) {
                if case .end = event { return .end(offset: offset) }
                return event
            }
        }
        return .needsMore
    }

    private mutating func takeData(_ bytes: UnsafeRawBufferPointer, _ offset: inout Int) -> Event {
        let available = UInt64(bytes.count - offset)
        let count = Int(min(available, remaining))
        let event = Event.data(offset: offset, count: count)
        offset += count
        remaining -= UInt64(count)
        if remaining == 0 { state = .dataReturn }
        return event
    }

    private mutating func step(_ byte: UInt8) -> Event? {
        switch state {
        case .size: return sizeByte(byte)
        case .sizeSpace: return sizeSpaceByte(byte)
        case .extensions: return extensionByte(byte)
        case .sizeLineFeed:
            guard byte == 0x0A else { return .malformed }
            state = remaining == 0 ? .trailers : .data
            return nil
        case .dataReturn:
            guard byte == 0x0D else { return .malformed }
            state = .dataLineFeed
            return nil
        case .dataLineFeed:
            guard byte == 0x0A else { return .malformed }
            state = .size
            digits = 0
            lineBytes = 0
            return nil
        case .trailers: return trailerByte(byte)
        case .data, .done: preconditionFailure("no byte is expected in state \(state)")
        }
    }

    /// One to 15 hex digits: 2^60 bytes are enough, and nothing can overflow. No sign, no space.
    private mutating func sizeByte(_ byte: UInt8) -> Event? {
        if let digit = ASCII.hexDigit(byte) {
            guard digits < 15 else { return .malformed }
            remaining = remaining << 4 | UInt64(digit)
            digits += 1
            return nil
        }
        guard digits > 0 else { return .malformed }
        switch byte {
        case 0x0D: state = .sizeLineFeed
        case 0x20, 0x09: state = .sizeSpace
        case UInt8(ascii: ";"):
            grammar = ChunkExtension()
            state = .extensions
        default: return .malformed
        }
        return nil
    }

    /// Space may stand before an extension (RFC 9112 §7.1.1), and only there.
    private mutating func sizeSpaceByte(_ byte: UInt8) -> Event? {
        guard byte != UInt8(ascii: ";") else {
            grammar = ChunkExtension()
            state = .extensions
            return nil
        }
        guard byte == 0x20 || byte == 0x09 else { return .malformed }
        return countedExtensionByte()
    }

    private mutating func extensionByte(_ byte: UInt8) -> Event? {
        if byte == 0x0D {
            guard grammar.mayEnd else { return .malformed }
            state = .sizeLineFeed
            return nil
        }
        guard grammar.take(byte) else { return .malformed }
        return countedExtensionByte()
    }

    private mutating func countedExtensionByte() -> Event? {
        lineBytes += 1
        extensionBytes += 1
        guard lineBytes <= Limits.chunkLineBytesMax,
            extensionBytes <= Limits.chunkExtensionBytesMax
        else { return .tooLarge }
        return nil
    }

    private mutating func trailerByte(_ byte: UInt8) -> Event? {
        guard trailers.count < Limits.trailerBytesMax else { return .tooLarge }
        // The usual end, without trailers, must not allocate: only a second byte that is no line
        // feed shows that something is to be kept.
        if trailers.isEmpty {
            if digits >= 0 {
                if byte == 0x0D {
                    digits = -1
                    return nil
                }
                guard ASCII.isToken(byte) else { return .malformed }
                trailers.append(byte)
                return nil
            }
            guard byte == 0x0A else { return .malformed }
            state = .done
            return .end(offset: 0)
        }
        trailers.append(byte)
        guard byte == 0x0A else { return nil }
        guard trailers[trailers.count - 2] == 0x0D else { return .malformed }
        if trailers.count >= 4, trailers[trailers.count - 3] == 0x0A {
            state = .done
            return .end(offset: 0)
        }
        return nil
    }
}
