import WeirCore

/// A request for something in this process, whole.
package struct LocalRequest: Sendable {
    package var method: String
    package var path: String
    /// Without the question mark.
    package var query: String?
    /// Names as they came; look up with `field`.
    package var fields: [(name: String, value: String)]
    package var body: [UInt8]
    package var peer: SocketAddress?
    package var requestID: String

    /// The first value; `name` in lower case.
    package func field(_ name: String) -> String? {
        fields.first { $0.name.lowercased() == name }?.value
    }
}

package struct LocalResponse {
    package enum Body {
        case bytes([UInt8])
        /// Written piece by piece, each leaving at once (events). Throwing cuts the response.
        case stream((LocalWriter) async throws -> Void)
    }

    package var status: Int
    package var fields: [(name: String, value: String)]
    package var body: Body
    /// The value of the `Trailer` field; what it names is given to the writer of a streamed body.
    package var trailerNames: StaticString?

    package init(
        status: Int, fields: [(name: String, value: String)] = [], body: Body,
        trailerNames: StaticString? = nil
    ) {
        self.status = status
        self.fields = fields
        self.body = body
        self.trailerNames = trailerNames
    }

    package init(status: Int, contentType: String, _ bytes: [UInt8]) {
        self.init(status: status, fields: [("content-type", contentType)], body: .bytes(bytes))
    }
}

/// Answers requests in this process, on the worker's loop, as plain `async` code. When the client
/// goes away the task is cancelled. A closure and not a subclass, so that other modules can make
/// one.
package final class LocalHandler {
    let bodyBytesMax: Int
    /// Fields of `weir-*` that anybody may send, in lower case: what callers say of themselves.
    let publicFields: Set<String>
    let respond: (LocalRequest) async -> LocalResponse

    package init(
        bodyBytesMax: Int = Limits.localBodyBytesMax, publicFields: Set<String> = [],
        respond: @escaping (LocalRequest) async -> LocalResponse
    ) {
        self.bodyBytesMax = bodyBytesMax
        self.publicFields = publicFields
        self.respond = respond
    }
}

/// The body of a streamed answer. On the loop only, and only while the handler's closure runs.
package final class LocalWriter {
    private weak var exchange: Exchange?
    private var waiting: UnsafeContinuation<Void, Never>?

    init(exchange: Exchange) { self.exchange = exchange }

    /// Sends at once; suspends while the client does not take it. Throws when the client is gone.
    package func write(_ bytes: [UInt8]) async throws(CancellationError) {
        guard let exchange, exchange.phase == .answering, let server = exchange.server,
            !Task.isCancelled
        else { throw CancellationError() }
        bytes.withUnsafeBytes { server.sendBody($0) }
        exchange.worker.flush()
        if server.isCongested {
            await withUnsafeContinuation { continuation in
                // Asked again: the `await` may have let the loop have a turn.
                if exchange.phase == .answering, server.isCongested {
                    waiting = continuation
                } else {
                    continuation.resume()
                }
            }
            if exchange.phase != .answering || Task.isCancelled { throw CancellationError() }
        }
    }

    /// Goes behind the body, to clients that can be sent trailers.
    package func addTrailer(_ name: String, _ value: String) {
        guard let exchange, exchange.phase == .answering else { return }
        exchange.responseTrailers.add(name, value)
    }

    func resume() {
        let waiting = self.waiting
        self.waiting = nil
        waiting?.resume()
    }
}

extension Exchange {
    func beginLocal(_ handler: LocalHandler) {
        localHandler = handler
        hold(bytesMax: min(handler.bodyBytesMax, Limits.heldBodyBytesMax), phase: .gathering)
    }

    func startLocal() {
        guard let handler = localHandler else { return }
        let request = localRequest(handler)
        held.discard(pool: worker.loop.pool)
        isShared = true
        phase = .answering
        let loop = worker.loop
        let bound = LoopBound((self, handler), loop: loop)
        localTask = loop.spawn {
            let (exchange, handler) = bound.value
            let response = await handler.respond(request)
            await exchange.answer(response)
        }
    }

    private func localRequest(_ handler: LocalHandler) -> LocalRequest {
        let head = requestHead
        let target = head.text(head.target)
        let mark = target.firstIndex(of: "?")
        var fields: [(name: String, value: String)] = []
        for index in 0..<head.fieldCount {
            let field = head.field(index)
            let name = head.text(field.name)
            if field.id == .weir, !trustsPeer, !handler.publicFields.contains(name.lowercased()) {
                continue
            }
            fields.append((name, head.text(field.value)))
        }
        return LocalRequest(
            method: head.text(head.methodRange),
            path: mark.map { String(target[..<$0]) } ?? target,
            query: mark.map { String(target[target.index(after: $0)...]) },
            fields: fields, body: Array(held.bytes), peer: peer, requestID: "req_\(requestID)")
    }

    private func answer(_ response: LocalResponse) async {
        guard phase == .answering else { return }
        status = response.status
        for field in response.fields { addedResponseFields.add(field.name, field.value) }
        switch response.body {
        case .bytes(let bytes):
            end(server == nil ? .clientGone : .answered, .admitted, true)
            headIsSent = true
            sendWhole(response.status, bytes)
            leave()
        case .stream(let body):
            if let names = response.trailerNames {
                declaresTrailers = true
                trailerNames = names
            }
            await stream(body)
        }
        worker.flush()
    }

    private func stream(_ body: (LocalWriter) async throws -> Void) async {
        headIsSent = true
        let hasBody = requestHead.method != .head
        server?.sendHead(status: status, upstream: nil, contentLength: -1, hasBody: hasBody)
        worker.flush()
        let writer = LocalWriter(exchange: self)
        localWriter = writer
        var isWhole = true
        if hasBody {
            do { try await body(writer) } catch { isWhole = false }
        }
        guard phase == .answering else { return }
        if isWhole {
            end(.answered, .admitted, true)
            server?.sendEnd(upstreamTrailers: nil)
        } else {
            end(server == nil ? .clientGone : .upstreamFailed, .cancelled, false)
            server?.abort()
        }
        leave()
    }

    func resumeLocalWriter() { localWriter?.resume() }
}
