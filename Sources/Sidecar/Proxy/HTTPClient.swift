import WeirCore

/// A request of our own.
package struct ClientRequest: Sendable {
    package var method: String
    /// Path and query.
    package var target: String
    /// The `Host`; the upstream target's own, when it has one, goes before.
    package var host: String
    /// Without framing fields; names and values are checked.
    package var fields: [(name: String, value: String)]
    package var body: [UInt8]
    package var responseBytesMax: Int

    package init(
        method: String = "GET", target: String, host: String = "weir",
        fields: [(name: String, value: String)] = [], body: [UInt8] = [],
        responseBytesMax: Int = Limits.clientResponseBytesMax
    ) {
        self.method = method
        self.target = target
        self.host = host
        self.fields = fields
        self.body = body
        self.responseBytesMax = responseBytesMax
    }
}

package struct ClientResponse: Sendable {
    package var status: Int
    package var fields: [(name: String, value: String)]
    package var body: [UInt8] = []
    package var trailers: [(name: String, value: String)] = []

    /// The first value; `name` in lower case.
    package func field(_ name: String) -> String? { fields.first(name) }
    package func trailer(_ name: String) -> String? { trailers.first(name) }
}

extension [(name: String, value: String)] {
    /// The first value; `name` in lower case.
    fileprivate func first(_ name: String) -> String? {
        first { $0.name.lowercased() == name }?.value
    }
}

package struct ClientError: Error, Sendable, CustomStringConvertible {
    package var reason: Reason
    package var detail: String
    /// Bytes may have reached the upstream: what the request costs is not known to be nothing.
    package var upstreamTouched: Bool

    package var description: String { "\(reason.name): \(detail)" }
}

/// Requests of our own (gateway to sidecars, health checks) over the same upstream pools, with the
/// same timeouts and retries as what passes through. On the worker's loop.
package final class HTTPClient {
    private let worker: Worker

    package init(worker: Worker) { self.worker = worker }

    /// The whole response. Cancelling the task cancels the request.
    package func send(
        _ request: ClientRequest, to target: UpstreamTarget, deadlineNanoseconds: UInt64
    ) async throws(ClientError) -> ClientResponse {
        let stream = try await open(request, to: target, deadlineNanoseconds: deadlineNanoseconds)
        var response = stream.response
        while let bytes = try await stream.next() {
            guard response.body.count + bytes.count <= request.responseBytesMax else {
                stream.cancel()
                throw ClientError(
                    reason: .tooLarge, detail: "the response is larger than the limit",
                    upstreamTouched: true)
            }
            response.body += bytes
        }
        response.trailers = stream.trailers
        return response
    }

    /// Returns when the response's head is there; the body is read with `next`.
    package func open(
        _ request: ClientRequest, to target: UpstreamTarget, deadlineNanoseconds: UInt64
    ) async throws(ClientError) -> ClientStreamingResponse {
        worker.loop.preconditionInLoop()
        guard let call = ClientCall(request, target, worker, deadlineNanoseconds) else {
            throw ClientError(
                reason: .malformed, detail: "the request is not valid", upstreamTouched: false)
        }
        let response = try await call.waitForHead()
        return ClientStreamingResponse(call: call, response: response)
    }
}

/// A response whose body comes piece by piece. Letting go of it without reading to the end cancels
/// the request.
package final class ClientStreamingResponse {
    private let call: ClientCall
    package let response: ClientResponse

    init(call: ClientCall, response: ClientResponse) {
        self.call = call
        self.response = response
    }

    deinit { call.cancel() }

    /// The next bytes; `nil` at the end, when `trailers` are there.
    package func next() async throws(ClientError) -> [UInt8]? { try await call.next() }
    package var trailers: [(name: String, value: String)] { call.trailers }
    /// The first value; `name` in lower case.
    package func trailer(_ name: String) -> String? { call.trailers.first(name) }
    package func cancel() { call.cancel() }
}

/// Admits the one request that it is made for.
private final class ClientInterceptor: Interceptor {
    let target: UpstreamTarget
    let deadlineNanoseconds: UInt64
    let body: [UInt8]
    unowned let call: ClientCall

    init(_ call: ClientCall, _ target: UpstreamTarget, _ deadline: UInt64, _ body: [UInt8]) {
        self.call = call
        self.target = target
        deadlineNanoseconds = deadline
        self.body = body
    }

    override func requestBegan(_ exchange: Exchange) -> Verdict {
        exchange.isOwn = true
        exchange.trustsPeer = true
        exchange.trustsUpstream = true
        exchange.setDeadline(afterNanoseconds: deadlineNanoseconds)
        return body.isEmpty ? .admit(target) : .holdBody(bytesMax: Limits.heldBodyBytesMax)
    }

    override func requestBodyHeld(
        _ exchange: Exchange, _ body: UnsafeRawBufferPointer
    ) -> Verdict { .admit(target) }

    override func clientDisconnected(_ exchange: Exchange) -> DisconnectDecision { .cancel }

    override func exchangeEnded(_ exchange: Exchange, _ outcome: ExchangeOutcome) {
        call.outcome = outcome
    }
}

/// The downstream end of a request of our own: gathers what an `async` caller waits for.
final class ClientCall: ServerStream {
    var outcome: ExchangeOutcome?
    private(set) var trailers: [(name: String, value: String)] = []
    private var head: ClientResponse?
    private var chunks: [[UInt8]] = []
    private var waitingBytes = 0
    private var isWhole = false
    private var failure: ClientError?
    private var waiter: UnsafeContinuation<Void, Never>?
    private var interceptor: ClientInterceptor?

    fileprivate init?(
        _ request: ClientRequest, _ target: UpstreamTarget, _ worker: Worker, _ deadline: UInt64
    ) {
        super.init(worker: worker, peer: .loopback(port: 0), isSecure: false)
        let interceptor = ClientInterceptor(self, target, deadline, request.body)
        self.interceptor = interceptor
        let text = Self.head(of: request, host: target.hostOverride)
        let isFine = text.withUnsafeBytes { bytes -> Bool in
            var head = HTTPHead(
                base: UnsafeRawPointer(worker.headFields), fields: worker.headFields)
            // The strict parser is the check of everything that the caller gave.
            guard
                HeadParser.parseRequest(bytes, fields: worker.headFields, into: &head)
                    == .complete(bytes.count),
                head.fieldCount == request.fields.count + (request.body.isEmpty ? 1 : 2)
            else { return false }
            let exchange = worker.takeExchange()
            exchange.isShared = true
            self.exchange = exchange
            exchange.begin(server: self, interceptor: interceptor, head: head)
            return true
        }
        guard isFine else { return nil }
        if !request.body.isEmpty {
            request.body.withUnsafeBytes { exchange?.requestBytes($0) }
            exchange?.requestEnded()
        }
        worker.flush()
    }

    private static func head(of request: ClientRequest, host: String?) -> [UInt8] {
        var text =
            "\(request.method) \(request.target) HTTP/1.1\r\nhost: \(host ?? request.host)\r\n"
        for field in request.fields { text += "\(field.name): \(field.value)\r\n" }
        if !request.body.isEmpty { text += "content-length: \(request.body.count)\r\n" }
        return Array((text + "\r\n").utf8)
    }

    // MARK: The caller's side

    func waitForHead() async throws(ClientError) -> ClientResponse {
        while head == nil && failure == nil { await wait { $0.head == nil } }
        // What came before a failure is told first: the failure may have come in the same turn.
        if let head {
            if let refused = refusal { throw refused }
            return head
        }
        guard let failure else { preconditionFailure("neither a head nor a failure") }
        throw failure
    }

    /// The exchange refused for itself: nothing came from the upstream.
    private var refusal: ClientError? {
        guard let outcome, outcome.firstByteNanoseconds == 0 else { return nil }
        return ClientError(
            reason: outcome.reason, detail: outcome.reason.title,
            upstreamTouched: outcome.upstreamTouched)
    }

    func next() async throws(ClientError) -> [UInt8]? {
        while chunks.isEmpty && !isWhole && failure == nil {
            await wait { $0.chunks.isEmpty && !$0.isWhole }
        }
        if !chunks.isEmpty {
            let bytes = chunks.count == 1 ? chunks[0] : Array(chunks.joined())
            chunks.removeAll(keepingCapacity: true)
            waitingBytes = 0
            exchange?.downstreamDrained()
            worker.flush()
            return bytes
        }
        if let failure { throw failure }
        return nil
    }

    /// Suspends until something happens. Whether it must is asked again inside of the suspension:
    /// every `await` may let the loop have a turn, and what happens in it would wake nobody.
    private func wait(while isWaiting: @Sendable (ClientCall) -> Bool) async {
        let bound = LoopBound(self, loop: worker.loop)
        let loop = worker.loop
        await withTaskCancellationHandler {
            await withUnsafeContinuation { continuation in
                if failure == nil, isWaiting(self) {
                    waiter = continuation
                } else {
                    continuation.resume()
                }
            }
        } onCancel: {
            loop.execute { bound.value.cancel() }
        }
    }

    private func wake() {
        let waiter = self.waiter
        self.waiter = nil
        waiter?.resume()
    }

    func cancel() {
        guard !isWhole, failure == nil else { return }
        failure = ClientError(
            reason: .cancelled, detail: "cancelled",
            upstreamTouched: exchange?.upstreamTouched ?? false)
        let exchange = self.exchange
        self.exchange = nil
        exchange?.downstreamFailed()
        worker.flush()
        wake()
    }

    // MARK: The exchange's side

    override func sendInformational(_ head: HTTPHead?) {}

    override func sendHead(
        status: Int, upstream: HTTPHead?, contentLength: Int64, hasBody: Bool
    ) {
        head = ClientResponse(status: status, fields: upstream.map(Self.fields) ?? [])
        wake()
    }

    private static func fields(_ head: HTTPHead) -> [(name: String, value: String)] {
        (0..<head.fieldCount).map { index in
            let field = head.field(index)
            return (head.text(field.name), head.text(field.value))
        }
    }

    override func sendBody(_ bytes: UnsafeRawBufferPointer) {
        chunks.append(Array(bytes))
        waitingBytes += bytes.count
        if isCongested { exchange?.downstreamCongested() }
        wake()
    }

    override func sendEnd(upstreamTrailers: HTTPHead?) {
        if let upstreamTrailers { trailers = Self.fields(upstreamTrailers) }
        isWhole = true
        exchange = nil
        wake()
    }

    override func abort() {
        failure = ClientError(
            reason: outcome?.reason ?? .upstreamError, detail: "the response was cut",
            upstreamTouched: true)
        exchange = nil
        wake()
    }

    override func pauseBody() {}
    override func resumeBody() {}
    override var isCongested: Bool { waitingBytes > Limits.localAnswerPendingBytes }
    override func deadlinePassed() {}
}
