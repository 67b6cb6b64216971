/// The grammar of what stands behind the first semicolon of a chunk's size line (RFC 9112 §7.1.1):
///
///     *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] )
///
/// What is in it is forgotten; but a line that two readers could end at different places is refused
/// here as everywhere.
struct ChunkExtension {
    private enum State {
        case beforeName, name, afterName, beforeValue, value, quoted, quotedPair, quotedEnd
        case afterValue
    }

    private var state = State.beforeName

    /// Whether the line may end here. Space belongs to what follows it.
    var mayEnd: Bool {
        switch state {
        case .name, .value, .quotedEnd: true
        case .beforeName, .afterName, .beforeValue, .quoted, .quotedPair, .afterValue: false
        }
    }

    /// False: no extension has this byte here.
    mutating func take(_ byte: UInt8) -> Bool {
        let isSpace = byte == 0x20 || byte == 0x09
        switch state {
        case .beforeName: return isSpace || enter(.name, ASCII.isToken(byte))
        case .name:
            if ASCII.isToken(byte) { return true }
            return isSpace ? enter(.afterName) : afterName(byte)
        case .afterName: return isSpace || afterName(byte)
        case .beforeValue:
            if byte == UInt8(ascii: "\"") { return enter(.quoted) }
            return isSpace || enter(.value, ASCII.isToken(byte))
        case .value:
            if ASCII.isToken(byte) { return true }
            return isSpace ? enter(.afterValue) : enter(.beforeName, byte == UInt8(ascii: ";"))
        case .quoted:
            if byte == UInt8(ascii: "\"") { return enter(.quotedEnd) }
            if byte == UInt8(ascii: "\\") { return enter(.quotedPair) }
            return ASCII.isFieldValue(byte)
        case .quotedPair: return enter(.quoted, ASCII.isFieldValue(byte))
        case .quotedEnd:
            return isSpace ? enter(.afterValue) : enter(.beforeName, byte == UInt8(ascii: ";"))
        case .afterValue: return isSpace || enter(.beforeName, byte == UInt8(ascii: ";"))
        }
    }

    private mutating func afterName(_ byte: UInt8) -> Bool {
        if byte == UInt8(ascii: "=") { return enter(.beforeValue) }
        return enter(.beforeName, byte == UInt8(ascii: ";"))
    }

    private mutating func enter(_ next: State, _ isFine: Bool = true) -> Bool {
        state = next
        return isFine
    }
}
