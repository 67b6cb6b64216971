import Glibc
import WeirCore

/// One request and its answer: where a downstream stream, an interceptor and an upstream stream
/// meet, whatever protocols they speak. It decides nothing about admission (the interceptor does)
/// and nothing about bytes on the wire (the streams do); it keeps the order of events and sees to
/// it that each exchange ends exactly once.
///
///     deciding ──admit──► connecting ──► forwarding ──► ended
///        │ holdBody ► holding ─┘ │            ▲
///        │ wait ► waiting ───────┘            │ retry (nothing was sent, or it may be repeated)
///        └ local ► gathering ► answering ─────┴──► ended
package final class Exchange: Timed {
    enum Phase {
        case idle, deciding, holding, waiting, connecting, forwarding, gathering, answering, ended
    }

    package unowned(unsafe) let worker: Worker
    var interceptor: Interceptor?
    var phase = Phase.idle
    var server: ServerStream?
    var client: ClientStream?
    /// A connection that is being opened for this exchange.
    var opening: UpstreamOpening?
    package internal(set) var target: UpstreamTarget?
    /// Which of the target's endpoints; `nil` for the first.
    package var upstreamAddress: SocketAddress?
    /// Why the upstream gave no whole response, where that is the end of the exchange.
    var upstreamFailure: UpstreamFailure?

    // The request.
    private var slab: BufferPool.Slab?
    package internal(set) var requestHead: HTTPHead
    /// A call of gRPC: its refusals and its end are said in the words of gRPC.
    package private(set) var isGRPC = false
    /// Bytes of the body to come: 0 for none, below 0 when it is chunked.
    package internal(set) var requestLength: Int64 = 0
    var requestIsWhole = false
    var held = ByteQueue()
    var heldBytesMax = 0
    /// How much of `held` the current upstream has been given.
    var heldSent = 0
    var bodyIsHeld = false
    /// `held` is all of the body so far, because an upstream may still say that it has not begun.
    var keepsForReplay = false
    /// Those of a held request, as lines.
    private var keptTrailers = ByteQueue()

    // The response.
    /// The upstream's final head, during `responseBegan` only.
    package internal(set) var responseHead: HTTPHead?
    /// The upstream's trailers, during `exchangeEnded` only.
    package internal(set) var upstreamTrailers: HTTPHead?
    var headIsSent = false
    /// `exchangeEnded` came before the head, because the settlement stands in its fields.
    var endedAhead = false
    /// What the client was told.
    var status = 0
    /// `nil` for requests that ask for no other protocol.
    var tunnel: TunnelState?
    var requestBytesSeen: UInt64 = 0
    var responseBytesSeen: UInt64 = 0
    var informationals = 0
    /// What the upstream's answer says of a call of gRPC.
    var grpcStatus: GRPCStatus?

    // What the interceptor may set.
    package var context: InterceptorContext?
    /// A mesh peer proven by MAC or mTLS: its `weir-*` and forwarding fields are believed.
    package var trustsPeer = false
    /// The upstream is proven too: its `weir-*` response fields and trailers pass.
    package var trustsUpstream = false
    /// A request of our own (`HTTPClient`): no forwarding fields are added.
    var isOwn = false
    /// The upstream is told how many milliseconds are left (`request-timeout-ms`).
    private(set) var announcesDeadline = false
    package var addedRequestFields = FieldBuffer()
    package var addedResponseFields = FieldBuffer()
    package var responseTrailers = FieldBuffer()
    /// Promise the client `responseTrailers`: a response with a length is then sent chunked, and
    /// one without a body carries them as fields. Set in `requestBegan` or `responseBegan`.
    package var declaresTrailers = false
    /// The value of the `Trailer` field that announces them.
    package var trailerNames: StaticString = "weir-settlement"
    /// The interceptor passes the body on (`sendFiltered`), of another length than it had.
    package var filtersResponse = false
    private var removedRequestFields: UInt64 = 0
    private var removedResponseFields: UInt64 = 0
    /// Sent upstream instead of the client's target, when set.
    package var targetOverride: String?

    // Bookkeeping.
    package private(set) var startedNanoseconds: UInt64 = 0
    var firstByteNanoseconds: UInt64 = 0
    var upstreamTouched = false
    var replays = 0
    var localTask: Task<Void, Never>?
    var localHandler: LocalHandler?
    var localWriter: LocalWriter?
    private var storedID: Identifier?
    /// Someone outside of the loop's turn may still hold this object: it is not used again.
    var isShared = false

    init(worker: Worker) {
        self.worker = worker
        // Points nowhere until `begin`; a head without fields and bytes is never read.
        requestHead = HTTPHead(base: UnsafeRawPointer(worker.headFields), fields: worker.headFields)
        super.init()
    }

    deinit {
        addedRequestFields.deallocate()
        addedResponseFields.deallocate()
        responseTrailers.deallocate()
    }

    override package func deadlinePassed() { totalDeadlinePassed() }

    // MARK: What interceptors use

    /// The identity of the request, made at first use.
    package var requestID: Identifier {
        if let storedID { return storedID }
        let id = Identifier(time: worker.wallClock(), random: (worker.random(), worker.random()))
        storedID = id
        return id
    }

    /// The identity that a proven peer gave the request, instead of one of our own.
    package func adopt(requestID: Identifier) { storedID = requestID }

    package var peer: SocketAddress? { server?.peer }
    package var isSecure: Bool { server?.isSecure ?? false }
    /// Whom the client's verified certificate names.
    package var peerIdentity: PeerIdentity? { server?.identity }

    package func removeRequestField(_ name: FieldName) {
        removedRequestFields |= 1 << UInt64(name.rawValue)
    }

    package func removeResponseField(_ name: FieldName) {
        removedResponseFields |= 1 << UInt64(name.rawValue)
    }

    /// Tells the upstream how many milliseconds it has, instead of what the client said.
    package func announceDeadline() {
        removeRequestField(.requestTimeout)
        if isGRPC { removeRequestField(.grpcTimeout) }
        announcesDeadline = true
    }

    func removesRequestField(_ name: FieldName) -> Bool {
        removedRequestFields >> UInt64(name.rawValue) & 1 != 0
    }

    func removesResponseField(_ name: FieldName) -> Bool {
        removedResponseFields >> UInt64(name.rawValue) & 1 != 0
    }

    /// When the whole exchange must be over (504, or a cut response). Replaces the default.
    package func setDeadline(afterNanoseconds delay: UInt64) {
        worker.loop.setDeadline(self, afterNanoseconds: delay)
    }

    /// In `requestBodyHeld`: another body goes upstream. False when there is no memory for it.
    package func replaceHeldBody(_ bytes: UnsafeRawBufferPointer) -> Bool {
        precondition(phase == .deciding && bodyIsHeld, "only a held body can be replaced")
        var replacement = ByteQueue()
        guard replacement.append(bytes, pool: worker.loop.pool) else { return false }
        held.discard(pool: worker.loop.pool)
        held = replacement
        return true
    }

    /// The held body, until the upstream has answered.
    package var heldBody: UnsafeRawBufferPointer { held.bytes }

    /// After `.wait`, once; on the loop. Does nothing when the exchange is over by then.
    package func resume(with verdict: Verdict) {
        worker.loop.preconditionInLoop()
        guard phase == .waiting else { return }
        phase = .deciding
        apply(verdict)
        worker.flush()
    }

    // MARK: The request comes in

    /// `head` is copied: it and all its ranges stay valid until the exchange has ended.
    func begin(server: ServerStream, interceptor: Interceptor, head: HTTPHead) {
        precondition(phase == .idle, "an exchange begins once")
        self.server = server
        self.interceptor = interceptor
        startedNanoseconds = worker.loop.nowNanoseconds
        phase = .deciding
        requestLength = head.flags.contains(.chunked) ? -1 : max(head.contentLength, 0)
        requestIsWhole = requestLength == 0
        // Only HTTP/2 carries it, and only there is it looked for.
        if head.flags.contains(.http2), let type = head.value(of: .contentType) {
            isGRPC = GRPC.isContentType(type)
        }
        worker.loop.setDeadline(self, afterNanoseconds: worker.timeouts.totalNanoseconds)
        guard keep(head) else {
            return refuseBeforeBegin(Refusal(.overloaded, retryAfterSeconds: 1))
        }
        if head.method == .connect || head.method == .trace {
            return refuseBeforeBegin(Refusal(.notImplemented))
        }
        if head.method == .options, head.has(.maxForwards) {
            guard let left = maxForwards else { return refuseBeforeBegin(Refusal(.malformed)) }
            if left == 0 { return answerAsLast() }
        }
        if head.flags.contains(.namesUpgrade), UpgradeRules.isPassed(head) { tunnel = .asked }
        apply(interceptor.requestBegan(self))
    }

    /// How many more parties may forward the request, us included: only TRACE (which is refused)
    /// and OPTIONS count (RFC 9110 §7.6.2). What is above any path's length is that length.
    var maxForwards: UInt64? {
        guard requestHead.method == .options, requestHead.count(of: .maxForwards) == 1,
            let value = requestHead.value(of: .maxForwards), (1...18).contains(value.count)
        else { return nil }
        var number: UInt64 = 0
        for byte in value {
            guard (48...57).contains(byte) else { return nil }
            number = number * 10 + UInt64(byte - 48)
        }
        return min(number, Limits.forwardsMax)
    }

    private func keep(_ head: HTTPHead) -> Bool {
        let tableBytes = head.fieldCount * MemoryLayout<HTTPField>.stride
        guard let slab = worker.loop.pool.lend(atLeast: tableBytes + head.byteCount) else {
            return false
        }
        self.slab = slab
        memcpy(slab.base, head.fields, tableBytes)
        memcpy(slab.base + tableBytes, head.base, head.byteCount)
        requestHead = head.moved(
            to: UnsafeRawPointer(slab.base + tableBytes),
            fields: slab.base.assumingMemoryBound(to: HTTPField.self))
        return true
    }

    /// The interceptor has not heard of this exchange, and does not hear of its end.
    private func refuseBeforeBegin(_ refusal: Refusal) {
        interceptor = nil
        refuse(refusal)
    }

    func apply(_ verdict: Verdict) {
        guard phase == .deciding else { return }
        switch verdict {
        case .admit(let target):
            self.target = target
            openUpstream()
        case .refuse(let refusal): refuse(refusal)
        case .wait:
            isShared = true
            phase = .waiting
            if !requestIsWhole { server?.pauseBody() }
        case .holdBody(let bytesMax):
            hold(bytesMax: min(bytesMax, Limits.heldBodyBytesMax), phase: .holding)
        case .local(let handler): beginLocal(handler)
        }
    }

    func hold(bytesMax: Int, phase next: Phase) {
        heldBytesMax = bytesMax
        guard requestLength <= Int64(bytesMax) else { return refuse(Refusal(.tooLarge)) }
        phase = next
        if requestIsWhole { return bodyIsWhole() }
        if requestHead.flags.contains(.expectsContinue) { server?.sendInformational(nil) }
        server?.resumeBody()
    }

    func requestBytes(_ bytes: UnsafeRawBufferPointer) {
        requestBytesSeen += UInt64(bytes.count)
        switch phase {
        case .forwarding:
            interceptor?.requestBytes(self, bytes)
            if keepsForReplay { keepForReplay(bytes) }
            client?.sendBody(bytes)
        case .holding, .gathering:
            guard held.count + bytes.count <= heldBytesMax else {
                return refuse(Refusal(.tooLarge))
            }
            if !held.append(bytes, pool: worker.loop.pool) {
                refuse(Refusal(.overloaded, retryAfterSeconds: 1))
            }
        case .idle, .deciding, .waiting, .connecting, .answering, .ended:
            // The stream is paused in these phases, or discards what follows an early end.
            break
        }
    }

    /// Beyond the limit a request cannot be repeated any more.
    private func keepForReplay(_ bytes: UnsafeRawBufferPointer) {
        let fits = held.count + bytes.count <= Limits.replayBytesMax
        if fits, held.append(bytes, pool: worker.loop.pool) { return }
        keepsForReplay = false
        held.discard(pool: worker.loop.pool)
    }

    /// `trailers` are those that a request may have (`HeadRules.allowTrailers`): they decide
    /// nothing here, and are passed on where the upstream's protocol carries them.
    func requestEnded(trailers: HTTPHead? = nil) {
        requestIsWhole = true
        switch phase {
        case .forwarding:
            if keepsForReplay, let trailers { keepTrailers(trailers) }
            client?.sendEnd(trailers: trailers)
        case .holding, .gathering:
            if let trailers { keepTrailers(trailers) }
            bodyIsWhole()
        case .idle, .deciding, .waiting, .connecting, .answering, .ended: break
        }
    }

    private func keepTrailers(_ trailers: HTTPHead) {
        let bytes = UnsafeRawBufferPointer(start: trailers.base, count: trailers.byteCount)
        // Without memory for them the request goes without them, as through a proxy that has none.
        _ = keptTrailers.append(bytes, pool: worker.loop.pool)
    }

    /// Valid until heads are read again.
    var requestTrailers: HTTPHead? {
        guard let base = keptTrailers.bytes.baseAddress else { return nil }
        var trailers = HTTPHead(base: base, fields: worker.headFields)
        trailers.byteCount = keptTrailers.count
        guard case .complete = HeadParser.parseFields(keptTrailers.bytes, from: 0, into: &trailers)
        else { return nil }
        return trailers
    }

    private func bodyIsWhole() {
        bodyIsHeld = true
        if phase == .gathering { return startLocal() }
        phase = .deciding
        guard let interceptor else { return }
        apply(interceptor.requestBodyHeld(self, held.bytes))
    }

    // MARK: Memory goes back

    /// Makes the object ready for the next request.
    func recycle() {
        let pool = worker.loop.pool
        if let slab { pool.giveBack(slab) }
        slab = nil
        held.discard(pool: pool)
        keptTrailers.discard(pool: pool)
        if isShared || phase != .ended {
            // Nobody reuses it, and the timers would keep it for as long as it might have taken.
            worker.loop.clearDeadline(self)
            return
        }
        worker.loop.setDeadline(self, atNanoseconds: .max)
        requestHead.fieldCount = 0
        requestHead.byteCount = 0
        requestHead.present = 0
        requestLength = 0
        requestIsWhole = false
        isGRPC = false
        grpcStatus = nil
        heldBytesMax = 0
        heldSent = 0
        bodyIsHeld = false
        keepsForReplay = false
        headIsSent = false
        endedAhead = false
        status = 0
        requestBytesSeen = 0
        responseBytesSeen = 0
        informationals = 0
        tunnel = nil
        trustsPeer = false
        trustsUpstream = false
        isOwn = false
        announcesDeadline = false
        upstreamAddress = nil
        upstreamFailure = nil
        addedRequestFields.removeAll()
        addedResponseFields.removeAll()
        responseTrailers.removeAll()
        declaresTrailers = false
        filtersResponse = false
        removedRequestFields = 0
        removedResponseFields = 0
        targetOverride = nil
        firstByteNanoseconds = 0
        upstreamTouched = false
        replays = 0
        storedID = nil
        phase = .idle
        worker.putBack(self)
    }
}
