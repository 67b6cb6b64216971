import Glibc
import WeirCore

/// The upstream side: finding a connection, sending the request, retrying where that is safe, and
/// passing the response on.
extension Exchange {
    func openUpstream() {
        guard let target else { return }
        heldSent = 0
        phase = .connecting
        switch target.checkout(for: self) {
        case .ready(let client): upstreamReady(client)
        case .pending: if !requestIsWhole { server?.pauseBody() }
        // A connect that fails at once (no route, a full backlog) is a failed attempt.
        case .refused(.upstreamError): upstreamFailed(.connectFailed(ECONNREFUSED))
        case .refused(let reason):
            refuse(Refusal(reason, retryAfterSeconds: reason == .overloaded ? 1 : nil))
        }
    }

    /// A slot became free.
    func retryCheckout() {
        guard phase == .connecting else { return }
        openUpstream()
        worker.flush()
    }

    func upstreamReady(_ client: ClientStream) {
        guard phase == .connecting else { return client.cancel() }
        opening = nil
        if isGRPC, !client.speaksHTTP2 {
            client.cancel()
            return refuse(Refusal(.notImplemented, detail: "The agent does not speak HTTP/2."))
        }
        phase = .forwarding
        self.client = client
        if !upstreamTouched {
            upstreamTouched = true
            interceptor?.upstreamFirstByteSent(self)
        }
        guard client.begin(self) else { return upstreamFailed(.noMemory) }
        if bodyIsHeld { return sendHeld() }
        if keepsForReplay {
            // What an upstream before this one had been given.
            client.sendBody(held.bytes)
        } else if target?.wire == .http2, requestBytesSeen == 0 {
            keepsForReplay = true
        }
        if requestIsWhole {
            client.sendEnd(trailers: requestTrailers)
        } else {
            server?.resumeBody()
        }
        // No flush here: what has come of the body leaves together with the head.
    }

    private func sendHeld() {
        guard let client else { return }
        while heldSent < held.count {
            if client.isCongested { return }
            let end = min(heldSent + Limits.readBytes, held.count)
            client.sendBody(UnsafeRawBufferPointer(rebasing: held.bytes[heldSent..<end]))
            heldSent = end
            worker.flush()
        }
        client.sendEnd(trailers: requestTrailers)
    }

    // MARK: Back-pressure

    /// The upstream takes no more for now.
    func upstreamCongested() {
        if phase == .forwarding, !bodyIsHeld || asksUpgrade { server?.pauseBody() }
    }

    func upstreamDrained() {
        guard phase == .forwarding else { return }
        if asksUpgrade, headIsSent {
            server?.resumeBody()
            finishTunnel()
        } else if bodyIsHeld {
            if heldSent < held.count { sendHeld() }
        } else if !requestIsWhole {
            server?.resumeBody()
        }
    }

    func downstreamCongested() {
        if phase == .forwarding { client?.pauseResponse() }
    }

    func downstreamDrained() {
        if phase == .forwarding { client?.resumeResponse() }
        if phase == .answering { resumeLocalWriter() }
    }

    // MARK: The response comes in

    func responseInformational(_ head: HTTPHead) {
        informationals += 1
        guard informationals <= Limits.informationalMax else {
            return upstreamFailed(.protocolError)
        }
        // RFC 9110 §15.2: a 1.0 client knows none; 100 and 101 only for who asked.
        switch head.status {
        case 100 where requestHead.flags.contains(.expectsContinue) && !bodyIsHeld:
            server?.sendInformational(head)
        case 100: break
        case 101: if !switchProtocols(head) { upstreamFailed(.protocolError) }
        default: if requestHead.minorVersion >= 1 { server?.sendInformational(head) }
        }
    }

    /// `contentLength` below 0: not known. `hasBody` is false for HEAD, 204 and 304.
    func responseBegan(_ head: HTTPHead, contentLength: Int64, hasBody: Bool) {
        firstByteNanoseconds = worker.loop.nowNanoseconds
        // It can be repeated no more, so nobody needs the body again.
        if keepsForReplay || heldSent == held.count {
            keepsForReplay = false
            held.discard(pool: worker.loop.pool)
            heldSent = 0
        }
        responseHead = head
        if isGRPC { grpcStatus = head.grpcStatus }
        interceptor?.responseBegan(self, status: head.status)
        responseHead = nil
        headIsSent = true
        status = head.status
        if declaresTrailers, !hasBody {
            // No body, no trailers: what they would say stands in the head, so the end comes first.
            endedAhead = true
            let isGone = server == nil
            end(isGone ? .clientGone : .completed, isGone ? .cancelled : .admitted, true)
        }
        server?.sendHead(
            status: head.status, upstream: head,
            contentLength: filtersResponse ? -1 : contentLength, hasBody: hasBody)
    }

    func responseBytes(_ bytes: UnsafeRawBufferPointer) {
        responseBytesSeen += UInt64(bytes.count)
        interceptor?.responseBytes(self, bytes)
        // The interceptor may have cut the response short.
        if phase == .forwarding, !filtersResponse { server?.sendBody(bytes) }
    }

    /// What an interceptor that filters lets through, in `responseBytes` and `responseEnding`.
    package func sendFiltered(_ bytes: UnsafeRawBufferPointer) {
        if phase == .forwarding, !bytes.isEmpty { server?.sendBody(bytes) }
    }

    /// The client stream has let go of this exchange already.
    func responseEnded(trailers: HTTPHead?) {
        guard phase == .forwarding || endedAhead else { return }
        client = nil
        if filtersResponse { interceptor?.responseEnding(self) }
        if isGRPC, grpcStatus == nil {
            grpcStatus = trailers?.grpcStatus ?? GRPCStatus(httpStatus: status)
        }
        if !endedAhead {
            let isGone = server == nil
            upstreamTrailers = trailers
            end(isGone ? .clientGone : .completed, isGone ? .cancelled : .admitted, true)
            upstreamTrailers = nil
        }
        server?.sendEnd(upstreamTrailers: trailers)
        leave()
    }

    // MARK: Failures

    /// The client stream is closed, or closes itself behind this call.
    func upstreamFailed(_ failure: UpstreamFailure) {
        guard phase == .forwarding || phase == .connecting else { return }
        opening = nil
        let failed = client
        if let failed {
            failed.exchange = nil
            client = nil
        }
        if mayRepeat(failure, failed) {
            replays += 1
            failed?.cancel()
            openUpstream()
            return
        }
        failed?.cancel()
        upstreamFailure = failure
        let reason = failure.reason
        if headIsSent || server == nil {
            end(server == nil ? .clientGone : .upstreamFailed, reason, false)
            cutResponse(reason, failure.detail)
            leave()
        } else {
            refuse(Refusal(reason, detail: failure.detail), kind: .upstreamFailed)
        }
    }

    /// Safe when no byte left this machine (whether another endpoint may be tried the interceptor
    /// knows), or when a reused connection died unanswered and doing it twice does no harm (RFC
    /// 9110 §9.2.2); and only while we still have the whole request.
    private func mayRepeat(_ failure: UpstreamFailure, _ client: ClientStream?) -> Bool {
        guard !headIsSent, informationals == 0, server != nil,
            bodyIsHeld || requestBytesSeen == 0 || keepsForReplay
        else { return false }
        switch failure {
        case .connectFailed, .handshakeFailed, .connectTimeout:
            return interceptor?.upstreamUnreachable(self) ?? false
        case .closedBeforeAnswer:
            guard let client, client.isReused, replays < Limits.staleRetriesMax else {
                return false
            }
            if !client.hasSent { return true }
            return requestHead.method.isIdempotent || requestHead.has(.idempotencyKey)
        case .refused: return replays < Limits.refusedRetriesMax
        case .reset, .protocolError, .firstByteTimeout, .stalled, .diedMidStream, .noMemory:
            return false
        }
    }

    func totalDeadlinePassed() {
        if asksUpgrade, headIsSent, phase == .forwarding {
            tunnelTimedOut()
            return worker.flush()
        }
        switch phase {
        case .idle, .ended: return
        case .deciding, .holding, .waiting, .connecting, .forwarding, .gathering, .answering:
            stopUpstream()
            stop(.deadline)
        }
        worker.flush()
    }

    /// Takes the exchange off its upstream, whose answer nobody needs.
    func stopUpstream() {
        if phase == .connecting {
            opening?.forget(self)
            opening = nil
            target?.forget(self)
        }
        guard let client else { return }
        self.client = nil
        client.exchange = nil
        client.cancel()
    }
}

extension UpstreamFailure {
    var reason: Reason {
        switch self {
        case .connectFailed, .handshakeFailed, .closedBeforeAnswer, .refused, .reset,
            .diedMidStream:
            .upstreamError
        case .connectTimeout, .firstByteTimeout, .stalled: .deadline
        case .protocolError: .upstreamProtocol
        case .noMemory: .overloaded
        }
    }

    /// For the client: what happened, without addresses.
    var detail: String {
        switch self {
        case .connectFailed: "the connection to the agent failed"
        case .handshakeFailed: "the TLS handshake with the agent failed"
        case .connectTimeout: "connecting to the agent took too long"
        case .closedBeforeAnswer: "the agent closed the connection before it answered"
        case .refused: "the agent refused the request without beginning it"
        case .reset: "the agent gave up the request before it answered"
        case .protocolError: "the agent's response is not valid HTTP"
        case .firstByteTimeout: "the agent did not begin to answer in time"
        case .stalled: "the agent stopped in the middle of its response"
        case .diedMidStream: "the agent closed the connection in the middle of its response"
        case .noMemory: "no buffers are left"
        }
    }
}
