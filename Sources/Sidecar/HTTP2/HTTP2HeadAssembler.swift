import Glibc

/// Makes an `HTTPHead` of the fields of a header block, as they come out of the decompression: in
/// the layout of HTTP/1.1 (one line behind the other), so that everything behind it is the same for
/// both protocols. Belongs to a worker and is used for one block at a time. A block may span
/// several reads, and other connections have their turn between them: then its owner takes the
/// unfinished block out with `park` and puts it back with `resume`.
///
/// Limits count before memory is used. After the first error nothing is stored, and `listBytes`
/// says how much came in spite of it.
///
/// nghttp2 has seen to the order and number of pseudo-fields, the bytes of names and values, and
/// fields that HTTP/2 forbids (RFC 9113 §8.2 and §8.3); what is judged here is what HTTP/1.1 is
/// judged for, too.
final class HTTP2HeadAssembler {
    enum Kind { case request, response, trailers }

    /// What is known of a block; together with the bytes it is all that `park` has to keep.
    struct Progress {
        fileprivate(set) var kind = Kind.request
        /// Sum of the lengths of names and values, and 32 for each field (RFC 9113 §6.5.2).
        fileprivate(set) var listBytes = 0
        fileprivate(set) var failure: HeadError?
        fileprivate var count = 0
        fileprivate var fieldCount = 0
        fileprivate var present: UInt64 = 0
        fileprivate var cookieCount = 0
        fileprivate var status = 0
        fileprivate var method = HTTPMethod.other
        fileprivate var methodRange = ByteRange()
        fileprivate var target = ByteRange()
        fileprivate var authority = ByteRange()
        fileprivate var hasHostLine = false
        fileprivate var sawHost = false
    }

    private(set) var progress = Progress()
    /// Of the request, as far as it is known.
    var method: HTTPMethod { progress.method }
    private let memory: UnsafeMutableRawPointer
    private let cookies: UnsafeMutableRawPointer
    private let fields: UnsafeMutablePointer<HTTPField>

    init() {
        memory = .allocate(byteCount: Limits.headBytesMax, alignment: 64)
        cookies = .allocate(byteCount: Limits.headBytesMax, alignment: 64)
        fields = .allocate(capacity: Limits.fieldsMax)
    }

    deinit {
        memory.deallocate()
        cookies.deallocate()
        fields.deallocate()
    }

    func begin(_ kind: Kind) {
        progress = Progress()
        progress.kind = kind
    }

    func add(name: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer) {
        progress.listBytes += name.count + value.count + 32
        guard progress.failure == nil, let first = name.baseAddress else { return }
        if name[0] == UInt8(ascii: ":") { return addPseudo(name, value) }
        addHostLine()
        let id = FieldName.of(name)
        if progress.kind == .request {
            if id == .cookie { return addCookie(value) }
            if id == .host, !progress.authority.isEmpty { return checkHost(value) }
        }
        if id == .other, memchr(first, 0x5F, name.count) != nil,
            FieldName.isDisguised(name)
        {
            return fail(.malformed)
        }
        addLine(name, value, id)
    }

    /// The head, valid until the next `begin`. `endsStream` says that no body follows.
    func finish(endsStream: Bool) -> Result<HTTPHead, HeadError> {
        if progress.failure == nil {
            addHostLine()
            addCookieLine()
            write("\r\n")
        }
        if let failure = progress.failure { return .failure(failure) }
        var head = HTTPHead(base: UnsafeRawPointer(memory), fields: fields)
        head.byteCount = progress.count
        head.fieldCount = progress.fieldCount
        head.present = progress.present
        head.flags = .http2
        head.status = progress.status
        head.method = progress.method
        head.methodRange = progress.methodRange
        head.target = progress.target
        switch progress.kind {
        case .trailers: return .success(head)
        case .request:
            return check(&head, endsStream: endsStream).map { .failure($0) } ?? .success(head)
        case .response:
            return HeadRules.check(&head, isRequest: false).map { .failure($0) } ?? .success(head)
        }
    }

    private func check(_ head: inout HTTPHead, endsStream: Bool) -> HeadError? {
        if head.method == .connect {
            // Its target is an authority and nothing else; refused by the exchange like every
            // CONNECT.
            guard head.target.isEmpty else { return .malformed }
        } else {
            guard let first = head.bytes(head.target).first else { return .malformed }
            let isAsterisk = first == UInt8(ascii: "*")
            guard first == UInt8(ascii: "/") || isAsterisk else { return .malformed }
            if isAsterisk, head.target.count != 1 || head.method != .options { return .malformed }
        }
        if let error = HeadRules.check(&head, isRequest: true) { return error }
        if endsStream { return head.contentLength > 0 ? .malformed : nil }
        if head.contentLength < 0 { head.flags.insert(.chunked) }
        return nil
    }

    // MARK: Pseudo-fields (RFC 9113 §8.3)

    private func addPseudo(_ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) {
        switch progress.kind {
        case .trailers: fail(.malformed)
        case .response:
            guard ASCII.equals(name, ":status"), let status = Self.status(value) else {
                return fail(.malformed)
            }
            progress.status = status
        case .request: addRequestPseudo(name, value)
        }
    }

    private func addRequestPseudo(_ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) {
        if ASCII.equals(name, ":path") {
            guard value.count <= Limits.targetBytesMax else { return fail(.targetTooLong) }
            guard ASCII.isTarget(value) else {
                return fail(.malformed)
            }
            progress.target = keep(value)
        } else if ASCII.equals(name, ":method") {
            guard value.count <= HeadParser.methodBytesMax, ASCII.isToken(value) else {
                return fail(.malformed)
            }
            progress.method = .of(value)
            progress.methodRange = keep(value)
        } else if ASCII.equals(name, ":authority") {
            guard RequestTarget.isAuthority(value) else { return fail(.malformed) }
            progress.authority = keep(value)
        } else if ASCII.equals(name, ":scheme") {
            guard
                ASCII.equalsIgnoringCase(value, "http") || ASCII.equalsIgnoringCase(value, "https")
            else { return fail(.malformed) }
        } else {
            fail(.malformed)
        }
    }

    private static func status(_ value: UnsafeRawBufferPointer) -> Int? {
        guard value.count == 3 else { return nil }
        var status = 0
        for byte in value {
            guard (48...57).contains(byte) else { return nil }
            status = status * 10 + Int(byte - 48)
        }
        return status >= 100 ? status : nil
    }

    // MARK: Host and cookies

    /// `:authority` becomes the `Host` of the message (RFC 9113 §8.3.1). Not before the first
    /// regular field, because lines must lie side by side and pseudo-fields come in any order.
    private func addHostLine() {
        guard !progress.hasHostLine else { return }
        progress.hasHostLine = true
        let authority = progress.authority
        guard !authority.isEmpty else { return }
        let name: StaticString = "host"
        addLine(
            UnsafeRawBufferPointer(start: name.utf8Start, count: 4),
            UnsafeRawBufferPointer(start: memory + authority.start, count: Int(authority.count)),
            .host)
    }

    /// Beside `:authority`, `Host` may only say the same, and once.
    private func checkHost(_ value: UnsafeRawBufferPointer) {
        let authority = UnsafeRawBufferPointer(
            start: memory + progress.authority.start, count: Int(progress.authority.count))
        guard !progress.sawHost, ASCII.equalsIgnoringCase(authority, value) else {
            return fail(.malformed)
        }
        progress.sawHost = true
    }

    /// RFC 9113 §8.2.3: crumbs, which HTTP/1.1 must see as one line.
    private func addCookie(_ value: UnsafeRawBufferPointer) {
        let separator = progress.cookieCount == 0 ? 0 : 2
        guard progress.count + progress.cookieCount + separator + value.count < Limits.headBytesMax
        else { return fail(.tooLarge) }
        if separator > 0 {
            cookies.storeBytes(
                of: UInt8(ascii: ";"), toByteOffset: progress.cookieCount, as: UInt8.self)
            cookies.storeBytes(
                of: UInt8(ascii: " "), toByteOffset: progress.cookieCount + 1, as: UInt8.self)
        }
        if let source = value.baseAddress {
            memcpy(cookies + progress.cookieCount + separator, source, value.count)
        }
        progress.cookieCount += separator + value.count
    }

    private func addCookieLine() {
        guard progress.cookieCount > 0 else { return }
        let name: StaticString = "cookie"
        addLine(
            UnsafeRawBufferPointer(start: name.utf8Start, count: 6),
            UnsafeRawBufferPointer(start: cookies, count: progress.cookieCount), .cookie)
    }

    // MARK: Memory

    private var bytesMax: Int {
        progress.kind == .trailers ? Limits.trailerBytesMax : Limits.headBytesMax
    }

    private func fail(_ error: HeadError) { progress.failure = progress.failure ?? error }

    private func addLine(
        _ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer, _ id: FieldName
    ) {
        let start = progress.count
        let end = start + name.count + value.count + 4
        guard progress.fieldCount < Limits.fieldsMax, end + 2 <= bytesMax,
            let nameBase = name.baseAddress
        else { return fail(.tooLarge) }
        memcpy(memory + start, nameBase, name.count)
        let colon = start + name.count
        memory.storeBytes(of: UInt8(ascii: ":"), toByteOffset: colon, as: UInt8.self)
        memory.storeBytes(of: UInt8(ascii: " "), toByteOffset: colon + 1, as: UInt8.self)
        if let valueBase = value.baseAddress { memcpy(memory + colon + 2, valueBase, value.count) }
        memory.storeBytes(of: 0x0D, toByteOffset: end - 2, as: UInt8.self)
        memory.storeBytes(of: 0x0A, toByteOffset: end - 1, as: UInt8.self)
        fields[progress.fieldCount] = HTTPField(
            name: ByteRange(start, colon), value: ByteRange(colon + 2, end - 2), id: id)
        progress.fieldCount += 1
        progress.present |= 1 &<< UInt64(id.rawValue)
        progress.count = end
    }

    private func keep(_ value: UnsafeRawBufferPointer) -> ByteRange {
        let start = progress.count
        guard start + value.count <= bytesMax, let base = value.baseAddress else {
            fail(.tooLarge)
            return ByteRange()
        }
        memcpy(memory + start, base, value.count)
        progress.count = start + value.count
        return ByteRange(start, progress.count)
    }

    private func write(_ text: StaticString) {
        _ = keep(UnsafeRawBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    // MARK: Blocks that span reads

    /// Copies the bytes of the unfinished block to `queue`; with `progress` that is all of it.
    /// False when there is no memory to lend.
    func park(in queue: inout ByteQueue, pool: BufferPool) -> Bool {
        let table = progress.fieldCount * MemoryLayout<HTTPField>.stride
        guard
            let room = queue.reserve(table + progress.count + progress.cookieCount, pool: pool)
        else { return false }
        memcpy(room, fields, table)
        memcpy(room + table, memory, progress.count)
        memcpy(room + table + progress.count, cookies, progress.cookieCount)
        queue.added(table + progress.count + progress.cookieCount)
        return true
    }

    /// Goes on with a block that was parked.
    func resume(_ progress: Progress, from queue: inout ByteQueue, pool: BufferPool) {
        self.progress = progress
        let table = progress.fieldCount * MemoryLayout<HTTPField>.stride
        let bytes = queue.bytes
        precondition(
            bytes.count == table + progress.count + progress.cookieCount, "another block's bytes")
        if let base = bytes.baseAddress {
            memcpy(fields, base, table)
            memcpy(memory, base + table, progress.count)
            memcpy(cookies, base + table + progress.count, progress.cookieCount)
        }
        queue.discard(pool: pool)
    }
}
