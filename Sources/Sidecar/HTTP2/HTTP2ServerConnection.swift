import CNghttp2
import Glibc
import WeirCore

/// A downstream HTTP/2 connection (RFC 9113). nghttp2 frames, compresses and keeps the states of
/// streams; this object gives it bytes, lets it write when the socket takes more, and counts what
/// clients do that costs us and not them. What becomes of a request is its stream's exchange's
/// matter.
///
/// nghttp2 must not be entered twice: while it reads or writes (`isInSession`) messages may be
/// submitted, but nothing is read or written. What has been submitted leaves at the end of the
/// turn, so that the answers that one batch of events brings leave in one system call.
///
///     open ──drain──► draining ──PING answered──► leaving ──last stream──► lingering ──► closed
///       └──── idle, misuse ────────────────────────┘
package final class HTTP2ServerConnection: ConnectionOwner, ServedConnection {
    private enum Phase {
        case open
        /// The client knows that the end is near, and what it has sent by then is served.
        case draining
        /// The last stream is named; those before it end.
        case leaving
        /// All is sent; what still comes is thrown away, so that the close does not become a reset.
        case lingering
        case closed
    }

    /// What the deadline of the connection is for.
    private enum Waiting { case nothing, settings, block, request, socket }

    unowned(unsafe) let worker: Worker
    let accepted: AcceptedConnection
    private(set) lazy var peerHost = HostText(accepted.peer)
    private(set) var connection: Connection?
    /// Position in the worker's list.
    var index = -1

    private(set) var session: OpaquePointer?
    private var phase = Phase.open
    private var waiting = Waiting.settings
    private(set) var isInSession = false
    /// Of the two ways to be in the session, the one that a callback may end.
    private(set) var isReading = false
    private var isBroken = false
    private var goodbyeIsDue = false
    /// Why the client is sent away, if it is.
    private var misuse: nghttp2_error_code?
    private var discarded = 0

    var streams: ContiguousArray<HTTP2ServerStream> = []
    /// Streams whose body goes on, and those that have room for more again.
    private var resumed: ContiguousArray<HTTP2ServerStream> = []
    private var relieved: ContiguousArray<HTTP2ServerStream> = []
    /// Response bytes that wait, of all streams.
    var pendingBytes = 0 {
        didSet { if pendingBytes > HTTP2ServerLimits.connectionPendingBytesMax { misused() } }
    }

    // The header block in progress, and what is kept of it between reads.
    let assembler: HTTP2HeadAssembler
    unowned(unsafe) var block: HTTP2ServerStream?
    private var parked = ByteQueue()
    private var parkedProgress: HTTP2HeadAssembler.Progress?

    // What its frames are judged by before nghttp2 reads them.
    private var heads = FrameHeads(skipping: HTTP2Preface.byteCount)
    private var order = ClientStreamOrder()
    var windowsBefore = StreamWindows()

    // What the client has left of its allowances.
    var continuations = 0
    var resets: FrameAllowance
    var idleFrames: FrameAllowance
    var windowUpdates: FrameAllowance

    init(_ accepted: AcceptedConnection) throws(HTTP2Error) {
        self.accepted = accepted
        worker = accepted.worker
        assembler = worker.headAssembler
        let now = worker.loop.nowNanoseconds
        resets = HTTP2ServerLimits.resets.starting(atNanoseconds: now)
        idleFrames = HTTP2ServerLimits.idleFrames.starting(atNanoseconds: now)
        windowUpdates = HTTP2ServerLimits.windowUpdates.starting(atNanoseconds: now)
        super.init()
        // SAFETY: the session is deleted in `deinit`, and calls back only inside of calls that this
        // object makes.
        session = try worker.http2Tables().makeSession(
            user: Unmanaged.passUnretained(self).toOpaque())
    }

    deinit {
        if let session { nghttp2_session_del(session) }
    }

    /// From now on the connection's bytes come here.
    func start(on connection: Connection) {
        self.connection = connection
        connection.handOver(to: self)
        worker.loop.setDeadline(connection, afterNanoseconds: worker.timeouts.headNanoseconds)
        wantsTurn()
    }

    // MARK: Bytes come in

    override func received(_ bytes: UnsafeRawBufferPointer) -> Int {
        switch phase {
        case .open, .draining, .leaving: take(bytes)
        case .lingering:
            discarded += bytes.count
            if discarded > Limits.drainBytesMax { fail() }
        case .closed: break
        }
        return bytes.count
    }

    private func take(_ bytes: UnsafeRawBufferPointer) {
        guard let session, misuse == nil else { return settle() }
        if let progress = parkedProgress {
            parkedProgress = nil
            assembler.resume(progress, from: &parked, pool: worker.loop.pool)
        }
        feed(bytes, to: session)
        if block != nil {
            parkedProgress = assembler.progress
            if !assembler.park(in: &parked, pool: worker.loop.pool) { isBroken = true }
        }
        if nghttp2_session_get_outbound_queue_size(session) > HTTP2ServerLimits.outgoingFramesMax {
            misuse = misuse ?? NGHTTP2_ENHANCE_YOUR_CALM
        }
        settle()
    }

    /// nghttp2 forgets a stream when it is closed, and passes over what comes for it (with
    /// priorities declined). So frames of streams that are not new are judged here, when nghttp2
    /// has read everything before them and knows what is open.
    private func feed(_ bytes: UnsafeRawBufferPointer, to session: OpaquePointer) {
        var fed = 0
        var offset = 0
        while let head = heads.next(bytes, from: &offset) {
            // Behind our last GOAWAY whatever is new is passed over (RFC 9113 §6.8).
            guard phase != .leaving, order.mayBeLate(head) else { continue }
            let start = max(offset - head.byteCount, fed)
            guard read(UnsafeRawBufferPointer(rebasing: bytes[fed..<start]), session) else {
                return
            }
            fed = start
            let isOpen =
                nghttp2_session_get_stream_user_data(session, Int32(head.stream)) != nil
            if let fault = order.fault(of: head, isOpen: isOpen) {
                misuse = nghttp2_error_code(fault.rawValue)
                return
            }
        }
        _ = read(UnsafeRawBufferPointer(rebasing: bytes[fed...]), session)
    }

    /// False when there is nothing more to be read.
    private func read(_ bytes: UnsafeRawBufferPointer, _ session: OpaquePointer) -> Bool {
        guard let base = bytes.baseAddress, bytes.count > 0 else { return misuse == nil }
        isInSession = true
        isReading = true
        let taken = nghttp2_session_mem_recv(
            session, base.assumingMemoryBound(to: UInt8.self), bytes.count)
        isInSession = false
        isReading = false
        if taken == Int(NGHTTP2_ERR_BAD_CLIENT_MAGIC.rawValue) {
            // Something else than HTTP/2, where nobody understands a GOAWAY (RFC 9113 §3.4).
            fail()
            return false
        }
        // So much that nghttp2 or we have had enough.
        if taken != bytes.count { misuse = misuse ?? NGHTTP2_ENHANCE_YOUR_CALM }
        return misuse == nil
    }

    /// We have given up a stream, and its client may not know yet.
    func resetSent(_ id: Int32) { order.closed(id, byUs: true) }
    func streamEnded(_ id: Int32) { order.closed(id, byUs: false) }

    override func ended() { fail() }
    override func failed(_ code: Int32) { fail() }

    override func congested() {
        waiting = .socket
        setDeadline(worker.timeouts.bodyProgressNanoseconds)
    }

    override func drained() {
        if phase == .lingering { return linger() }
        settle()
    }

    override func turn() { settle() }

    override func deadlinePassed() {
        switch waiting {
        // Silence is no fault, and a request that is on its way now is known to be unserved.
        case .request where phase == .open:
            phase = .leaving
            submitGoodbye()
            settle()
        case .block:
            misuse = NGHTTP2_ENHANCE_YOUR_CALM
            settle()
        case .nothing, .settings, .request, .socket: fail()
        }
    }

    // MARK: Turns

    /// Another turn comes soon, in which everything that was submitted is written.
    func wantsTurn() {
        if let connection { worker.loop.runAgain(connection) }
    }

    /// A client that does what honest ones do not come near to, or what nghttp2 lets pass.
    func misused(_ code: nghttp2_error_code = NGHTTP2_ENHANCE_YOUR_CALM) {
        misuse = misuse ?? code
        wantsTurn()
    }

    /// Ends a turn: never inside of the session.
    private func settle() {
        guard let session, let connection, phase != .lingering, phase != .closed else { return }
        deliverResumed()
        if goodbyeIsDue { sayGoodbye() }
        if let misuse {
            phase = .leaving
            nghttp2_session_terminate_session(session, misuse.rawValue)
        }
        pump()
        if isBroken { return fail() }
        if nghttp2_session_want_read(session) == 0, nghttp2_session_want_write(session) == 0 {
            return leave()
        }
        rearm(connection)
    }

    private func deliverResumed() {
        while let stream = resumed.popLast() {
            // It may have been closed meanwhile, and be another request's now.
            guard stream.awaitsTurn, stream.connection === self else { continue }
            stream.awaitsTurn = false
            stream.deliverIncoming()
        }
    }

    func resumeLater(_ stream: HTTP2ServerStream) {
        resumed.append(stream)
        wantsTurn()
    }

    func relieveLater(_ stream: HTTP2ServerStream) { relieved.append(stream) }

    /// Writes what the session has, for as long as the socket takes it.
    func pump() {
        guard !isInSession, let session, let connection else { return }
        isInSession = true
        while !connection.isCongested {
            var data: UnsafePointer<UInt8>?
            let count = nghttp2_session_mem_send(session, &data)
            if count < 0 {
                isBroken = true
                wantsTurn()
            }
            guard count > 0, let data else { break }
            connection.emit(UnsafeRawBufferPointer(start: data, count: count))
        }
        isInSession = false
        while let stream = relieved.popLast() { stream.exchange?.downstreamDrained() }
    }

    private func rearm(_ connection: Connection) {
        let next: Waiting =
            connection.isCongested
            ? .socket
            : waiting == .settings
                ? .settings : parkedProgress != nil ? .block : streams.isEmpty ? .request : .nothing
        guard next != waiting else { return }
        waiting = next
        switch next {
        case .nothing: setDeadline(.max)
        case .settings, .block: setDeadline(worker.timeouts.headNanoseconds)
        case .request: setDeadline(worker.timeouts.keepAliveNanoseconds)
        case .socket: setDeadline(worker.timeouts.bodyProgressNanoseconds)
        }
    }

    private func setDeadline(_ nanoseconds: UInt64) {
        guard let connection else { return }
        if nanoseconds == .max {
            worker.loop.setDeadline(connection, atNanoseconds: .max)
        } else {
            worker.loop.setDeadline(connection, afterNanoseconds: nanoseconds)
        }
    }

    func settingsCame() {
        if waiting == .settings { waiting = .nothing }
    }

    /// Each block has its time, also where one follows the other without a pause.
    func blockBegan() {
        if waiting == .block { waiting = .nothing }
    }

    // MARK: The end

    /// Requests that are on their way when the client hears of the end are served; then the last of
    /// them is named (RFC 9113 §6.8). What is left after the drain time is cut.
    func drain() {
        guard phase == .open, let session else { return }
        phase = .draining
        guard nghttp2_submit_shutdown_notice(session) == 0 else { return fail() }
        worker.loop.schedule(afterNanoseconds: HTTP2ServerLimits.drainRoundTripNanoseconds) {
            [weak self] in
            self?.sayGoodbye()
            self?.wantsTurn()
        }
        settle()
    }

    /// The notice is on its way. Not before it: a PING overtakes what is queued.
    func goodbyeSent() {
        guard phase == .draining, let session else { return }
        if nghttp2_submit_ping(session, UInt8(NGHTTP2_FLAG_NONE.rawValue), nil) != 0 {
            isBroken = true
        }
    }

    /// Our PING came back: the client has read the notice before it.
    func pingAnswered() {
        if phase == .draining { goodbyeIsDue = true }
    }

    private func sayGoodbye() {
        goodbyeIsDue = false
        guard phase == .draining else { return }
        phase = .leaving
        submitGoodbye()
    }

    private func submitGoodbye() {
        guard let session else { return }
        let last = nghttp2_session_get_last_proc_stream_id(session)
        let result = nghttp2_submit_goaway(
            session, UInt8(NGHTTP2_FLAG_NONE.rawValue), last, NGHTTP2_NO_ERROR.rawValue, nil, 0)
        if result != 0 { isBroken = true }
    }

    /// Nothing is left to say.
    private func leave() {
        phase = .lingering
        abandonStreams()
        linger()
    }

    private func linger() {
        guard let connection else { return }
        connection.shutDownWriting()
        // What was sent has not left yet: `drained` comes back here.
        waiting = .socket
        setDeadline(
            connection.isCongested
                ? worker.timeouts.bodyProgressNanoseconds : worker.timeouts.lingerNanoseconds)
    }

    func cut() { fail() }

    private func fail() {
        guard phase != .closed else { return }
        phase = .closed
        connection?.close()
        connection = nil
        parked.discard(pool: worker.loop.pool)
        abandonStreams()
        worker.connectionClosed(self)
    }

    private func abandonStreams() {
        let abandoned = streams
        streams.removeAll()
        block = nil
        for stream in abandoned { stream.closed() }
    }
}
