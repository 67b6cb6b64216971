import WeirCore

/// Behind a 101 the exchange is a tunnel: bytes of another protocol, both ways, until both sides
/// have ended. It is what it was before to everybody else: it has its place in the agent's
/// concurrency, its price and its deadline, and ends once.
///
///     forwarding ──101──► open ──one side ends──► half-closed ──the other──► ended
///                           │ idle, total time, either side breaks ────────► ended
extension Exchange {
    /// Whether the request asks for another protocol and this side lets it.
    package var asksUpgrade: Bool { tunnel != nil }

    /// The upstream agrees. `false`: not to what it was asked.
    func switchProtocols(_ head: HTTPHead) -> Bool {
        guard tunnel == .asked, UpgradeRules.isAgreed(head, to: requestHead) else { return false }
        guard client?.carriesTunnels == true, server?.carriesTunnels ?? true else { return false }
        guard let server, let client else {
            // The client left meanwhile.
            stopUpstream()
            end(.clientGone, .cancelled, false)
            leave()
            return true
        }
        firstByteNanoseconds = worker.loop.nowNanoseconds
        tunnel = .open
        responseHead = head
        interceptor?.responseBegan(self, status: head.status)
        responseHead = nil
        headIsSent = true
        declaresTrailers = false
        status = head.status
        client.beginTunnel()
        server.beginTunnel(head)
        return true
    }

    /// From the client to the upstream.
    func tunnelUp(_ bytes: UnsafeRawBufferPointer) {
        requestBytesSeen += UInt64(bytes.count)
        client?.sendBody(bytes)
    }

    func tunnelDown(_ bytes: UnsafeRawBufferPointer) {
        responseBytesSeen += UInt64(bytes.count)
        server?.sendTunnel(bytes)
    }

    /// The client sends no more. What it sent leaves first; the upstream may go on.
    func tunnelClientEnded() {
        client?.endTunnelOutput()
        tunnel = tunnel == .upstreamEnded ? .bothEnded : .clientEnded
        finishTunnel()
    }

    func tunnelUpstreamEnded() {
        server?.endTunnelOutput()
        tunnel = tunnel == .clientEnded ? .bothEnded : .upstreamEnded
        finishTunnel()
    }

    /// Its connection is broken. Behind its end that is how an upstream says that it reads no more.
    func tunnelUpstreamBroke() {
        guard tunnel == .upstreamEnded || tunnel == .bothEnded else {
            return upstreamFailed(.diedMidStream)
        }
        tunnel = .bothEnded
        closeTunnel(.completed, .admitted)
    }

    /// Nothing came for too long, or its time is over. No fault of the endpoint's.
    func tunnelTimedOut() { closeTunnel(.cutShort, .deadline) }

    /// What still waits for the upstream leaves before its connection is closed.
    func finishTunnel() {
        guard tunnel == .bothEnded, client?.isCongested != true else { return }
        closeTunnel(.completed, .admitted)
    }

    private func closeTunnel(_ kind: ExchangeOutcome.Kind, _ reason: Reason) {
        stopUpstream()
        end(kind, reason, kind == .completed)
        server?.endTunnel()
        leave()
    }
}

/// How far an exchange has come on its way to another protocol.
enum TunnelState { case asked, open, clientEnded, upstreamEnded, bothEnded }
