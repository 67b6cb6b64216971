import WeirCore

/// How exchanges end: refused, answered, cut, abandoned by the client. Every way passes through
/// `end`, once, and then through `leave`.
extension Exchange {
    /// Ends the exchange with a refusal. The request's body may still be on its way: the stream
    /// throws it away within bounds, or closes.
    func refuse(_ refusal: Refusal, kind: ExchangeOutcome.Kind = .refused) {
        guard phase != .ended, phase != .idle else { return }
        stopUpstream()
        status = refusal.reason.status
        // What was prepared for the upstream's response does not belong to this one.
        removesForRefusal()
        addedResponseFields.add("weir-decision", refusal.reason.name)
        if let seconds = refusal.retryAfterSeconds {
            addedResponseFields.add("retry-after", decimal: UInt64(max(seconds, 0)))
        }
        for field in refusal.fields { addedResponseFields.add(field.name, field.value) }
        end(kind, refusal.reason, false)
        if isGRPC {
            refuseCall(refusal)
            return leave()
        }
        let bytes = refusal.body?.bytes ?? refusal.document(requestID: "req_\(requestID)")
        addedResponseFields.add(
            "content-type", refusal.body?.contentType ?? "application/problem+json")
        sendWhole(status, bytes)
        leave()
    }

    /// A call of gRPC is refused by an answer that consists of trailers alone, always with 200.
    private func refuseCall(_ refusal: Refusal) {
        if let seconds = refusal.retryAfterSeconds {
            let milliseconds = UInt64(max(seconds, 0)) * 1000
            addedResponseFields.add("grpc-retry-pushback-ms", decimal: milliseconds)
        }
        let message = refusal.detail.isEmpty ? refusal.reason.title : refusal.detail
        addedResponseFields.add("content-type", "application/grpc" as StaticString)
        GRPC.addStatus(GRPCStatus(refusal.reason), message: message, to: &addedResponseFields)
        server?.sendHead(status: 200, upstream: nil, contentLength: -1, hasBody: false)
        server?.sendEnd(upstreamTrailers: nil)
    }

    /// The rest of the response is missing, and the client must see that: a call of gRPC is told
    /// why, everything else just ends.
    func cutResponse(_ reason: Reason, _ detail: String) {
        guard let server else { return }
        guard isGRPC, server.carriesTrailers else { return server.abort() }
        GRPC.addStatus(GRPCStatus(reason), message: detail, to: &responseTrailers)
        server.sendEnd(upstreamTrailers: nil)
    }

    /// An OPTIONS request that nobody behind us may see. Says nothing that depends on who asks, so
    /// no interceptor hears of it.
    func answerAsLast() {
        interceptor = nil
        status = 204
        headIsSent = true
        addedResponseFields.add("allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
        end(.answered, .admitted, true)
        sendWhole(status, [])
        leave()
    }

    private func removesForRefusal() {
        declaresTrailers = false
        headIsSent = true
    }

    func sendWhole(_ status: Int, _ bytes: [UInt8]) {
        guard let server else { return }
        let hasBody = requestHead.method != .head && status != 204 && status != 304
        // RFC 9110 §8.6: no length with 204; with 304 it would be that of another response.
        let length = status == 204 || status == 304 ? -1 : Int64(bytes.count)
        server.sendHead(status: status, upstream: nil, contentLength: length, hasBody: hasBody)
        if hasBody { bytes.withUnsafeBytes { server.sendBody($0) } }
        server.sendEnd(upstreamTrailers: nil)
    }

    /// Ends whatever goes on: a refusal where that is still possible, else a cut response.
    func stop(_ reason: Reason) {
        guard phase != .ended, phase != .idle else { return }
        if headIsSent || server == nil {
            localTask?.cancel()
            end(.upstreamFailed, reason, false)
            cutResponse(reason, reason.title)
            leave()
        } else {
            localTask?.cancel()
            refuse(Refusal(reason))
        }
    }

    /// Ends a response that has begun in good order: `lastBytes` (a last event, say) are its end.
    /// The upstream is cancelled. For interceptors, in `responseBytes` or later, on the loop.
    package func cutShort(lastBytes: UnsafeRawBufferPointer, reason: Reason) {
        guard phase == .forwarding, headIsSent else { return }
        stopUpstream()
        server?.sendBody(lastBytes)
        end(.cutShort, reason, false)
        server?.sendEnd(upstreamTrailers: nil)
        leave()
        worker.flush()
    }

    // MARK: The client is gone

    /// The client closed its side behind a whole request: it may still read (half-close), or be
    /// gone.
    func downstreamEnded() {
        switch phase {
        case .forwarding, .connecting:
            if interceptor?.clientDisconnected(self) == .cancel { abandon() }
        case .answering: localTask?.cancel()
        case .idle, .deciding, .holding, .waiting, .gathering, .ended: break
        }
    }

    /// Nothing can be sent to the client any more.
    func downstreamFailed() {
        guard phase != .ended, phase != .idle else { return }
        server = nil
        if asksUpgrade { return abandon() }
        // Without the rest of the request the upstream cannot answer.
        if phase == .forwarding, requestIsWhole,
            interceptor?.clientDisconnected(self) == .drain
        {
            client?.resumeResponse()
            return
        }
        abandon()
    }

    private func abandon() {
        stopUpstream()
        localTask?.cancel()
        end(.clientGone, .cancelled, false)
        server?.abort()
        leave()
    }

    /// The client did not send its request in time.
    func requestTimedOut() {
        guard phase != .ended, phase != .idle else { return }
        if headIsSent { return stop(.requestTimeout) }
        refuse(Refusal(.requestTimeout))
    }

    /// The framing of the request's body is broken.
    func requestMalformed(_ reason: Reason) {
        guard phase != .ended, phase != .idle else { return }
        stopUpstream()
        stop(reason)
    }

    // MARK: The one end

    func end(_ kind: ExchangeOutcome.Kind, _ reason: Reason, _ isWhole: Bool) {
        precondition(phase != .ended && phase != .idle, "an exchange ends once")
        phase = .ended
        guard let interceptor else { return }
        self.interceptor = nil
        interceptor.exchangeEnded(
            self,
            ExchangeOutcome(
                kind: kind, reason: reason, status: status, requestBytes: requestBytesSeen,
                responseBytes: responseBytesSeen, upstreamTouched: upstreamTouched,
                responseIsWhole: isWhole, upstreamFailure: upstreamFailure,
                grpcStatus: isGRPC ? grpcStatus ?? GRPCStatus(reason) : nil, replays: replays,
                startedNanoseconds: startedNanoseconds,
                firstByteNanoseconds: firstByteNanoseconds,
                endedNanoseconds: worker.loop.nowNanoseconds))
    }

    /// Lets go of everything; the stream has written its last byte.
    func leave() {
        let server = self.server
        self.server = nil
        client = nil
        target = nil
        context = nil
        interceptor = nil
        localTask = nil
        localHandler = nil
        // A writer that waits for the client finds out that there is none any more.
        let writer = localWriter
        localWriter = nil
        writer?.resume()
        server?.exchange = nil
        recycle()
    }
}

extension HeadError {
    var reason: Reason {
        switch self {
        case .malformed: .malformed
        case .tooLarge: .headersTooLarge
        case .targetTooLong: .uriTooLong
        case .version: .version
        case .notImplemented: .notImplemented
        case .expectation: .expectation
        }
    }
}

extension Exchange {
    /// Answers something that was no request. No interceptor hears of it.
    func refuseUnparsed(server: ServerStream, _ reason: Reason, method: HTTPMethod = .other) {
        self.server = server
        phase = .deciding
        requestHead.method = method
        refuse(Refusal(reason))
    }
}
