import CHiredis

/// hiredis's reply parser behind a type without pointers. Bytes go in as they come; whole replies
/// come out. Replies nested deeper than seven levels are an error of the parser.
final class RedisReader {
    // SAFETY: made in `init`, freed in `deinit`, never handed out; one thread owns the reader.
    private let raw: UnsafeMutablePointer<redisReader>

    init() {
        guard let reader = redisReaderCreate() else {
            preconditionFailure("hiredis has no memory for a reader")
        }
        raw = reader
    }

    deinit { redisReaderFree(raw) }

    /// `false`: the parser gave up, and with it the connection.
    func feed(_ bytes: UnsafeRawBufferPointer) -> Bool {
        guard let base = bytes.baseAddress else { return true }
        // SAFETY: hiredis copies the bytes into its own buffer before it returns.
        return redisReaderFeed(raw, base.assumingMemoryBound(to: CChar.self), bytes.count)
            == REDIS_OK
    }

    /// The next whole reply, `nil` when more bytes are needed.
    func next() throws(RedisError) -> RedisReply? {
        var reply: UnsafeMutableRawPointer?
        guard redisReaderGetReply(raw, &reply) == REDIS_OK else {
            throw .unexpectedReply("Redis's answer cannot be parsed")
        }
        guard let reply else { return nil }
        // SAFETY: the default reply functions of hiredis make `redisReply` objects; this one is
        // ours until it is freed here, and its conversion copies everything.
        defer { freeReplyObject(reply) }
        return Self.convert(reply.assumingMemoryBound(to: redisReply.self))
    }

    private static func convert(_ reply: UnsafeMutablePointer<redisReply>) -> RedisReply {
        switch reply.pointee.type {
        case REDIS_REPLY_INTEGER: return .integer(reply.pointee.integer)
        case REDIS_REPLY_STRING, REDIS_REPLY_STATUS: return .string(bytes(of: reply))
        case REDIS_REPLY_ERROR: return .error(String(decoding: bytes(of: reply), as: UTF8.self))
        case REDIS_REPLY_ARRAY:
            // SAFETY: `element` holds `elements` pointers, all of them set in a whole reply.
            let elements = UnsafeBufferPointer(
                start: reply.pointee.element, count: Int(reply.pointee.elements))
            return .array(elements.map { $0.map(convert) ?? .null })
        default: return .null
        }
    }

    private static func bytes(of reply: UnsafeMutablePointer<redisReply>) -> [UInt8] {
        // SAFETY: `str` holds `len` bytes for strings, statuses and errors.
        guard let text = reply.pointee.str else { return [] }
        return [UInt8](UnsafeRawBufferPointer(start: text, count: Int(reply.pointee.len)))
    }
}
