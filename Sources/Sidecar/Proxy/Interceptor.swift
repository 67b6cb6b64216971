import WeirCore

/// What shall become of a request.
package enum Verdict {
    case admit(UpstreamTarget)
    case local(LocalHandler)
    case refuse(Refusal)
    /// Gather the body, at most so many bytes (413 above), then ask `requestBodyHeld`.
    case holdBody(bytesMax: Int)
    /// The answer comes later, through `Exchange.resume(with:)`, once.
    case wait
}

/// What becomes of the upstream side when the client is gone.
package enum DisconnectDecision {
    /// Read the response to its end, so that the true usage is known.
    case drain
    case cancel
}

/// How an exchange ended, and what it took.
package struct ExchangeOutcome {
    package enum Kind: Equatable, Sendable {
        /// The whole response went to the client.
        case completed
        /// We answered ourselves: with a refusal or a local answer.
        case refused, answered
        /// The upstream failed, before its head (the client got a refusal) or behind it (the
        /// response was cut).
        case upstreamFailed
        /// The client went away. `responseIsWhole` says whether the upstream was read to its end.
        case clientGone
        /// The interceptor ended the response early (`Exchange.cutShort`).
        case cutShort
    }

    package var kind: Kind
    package var reason: Reason
    /// What the client was told, or would have been.
    package var status: Int
    package var requestBytes: UInt64 = 0
    package var responseBytes: UInt64 = 0
    /// Bytes of this request may have reached an upstream: it must be charged.
    package var upstreamTouched = false
    package var responseIsWhole = false
    /// What the upstream did wrong, for `upstreamFailed` and clients that left before.
    package var upstreamFailure: UpstreamFailure?
    /// How a call of gRPC ended: as the upstream said, where its response is whole, else as we did.
    package var grpcStatus: GRPCStatus?
    package var replays = 0
    package var startedNanoseconds: UInt64 = 0
    /// When the upstream's head was there; 0 if it never was.
    package var firstByteNanoseconds: UInt64 = 0
    package var endedNanoseconds: UInt64 = 0
}

/// State that an interceptor keeps for one exchange. Subclass it, take instances from a free list
/// in `requestBegan` and put them back in `exchangeEnded`: then it costs no allocation.
package class InterceptorContext {
    package init() {}
}

/// What stands between the head of a request and the upstream: one for each worker and listener.
/// All calls are made on the worker's loop. This base admits nothing.
package class Interceptor {
    package init() {}

    /// The head is known. May add or remove request fields on the exchange, and set its deadline.
    package func requestBegan(_ exchange: Exchange) -> Verdict {
        .refuse(Refusal(.unknownRoute))
    }

    /// After `.holdBody`. The body may be replaced with `Exchange.replaceHeldBody`.
    package func requestBodyHeld(
        _ exchange: Exchange, _ body: UnsafeRawBufferPointer
    ) -> Verdict { .refuse(Refusal(.unknownRoute)) }

    /// Body bytes as they stream upstream; held ones are not repeated here.
    package func requestBytes(_ exchange: Exchange, _ bytes: UnsafeRawBufferPointer) {}

    /// Nothing of the request was sent, because its endpoint cannot be connected to. True: another
    /// one stands in `exchange.upstreamAddress` and is to be tried. Called once for each endpoint.
    package func upstreamUnreachable(_ exchange: Exchange) -> Bool { false }

    /// The first bytes are about to be given to the kernel; from here on the upstream may know.
    package func upstreamFirstByteSent(_ exchange: Exchange) {}

    /// The upstream's final head, in `exchange.responseHead` during this call.
    package func responseBegan(_ exchange: Exchange, status: Int) {}

    package func responseBytes(_ exchange: Exchange, _ bytes: UnsafeRawBufferPointer) {}

    /// The body came to its end, and what was held back of it can still be sent
    /// (`Exchange.filtersResponse`).
    package func responseEnding(_ exchange: Exchange) {}

    /// The client is gone (or has closed its side) while the upstream works for it.
    package func clientDisconnected(_ exchange: Exchange) -> DisconnectDecision { .drain }

    /// Exactly once for each exchange that began. Before the end is written, so that
    /// `exchange.responseTrailers` can be set; for refusals before the head is.
    package func exchangeEnded(_ exchange: Exchange, _ outcome: ExchangeOutcome) {}
}

/// A request that is not carried out, and why (RFC 9457).
package struct Refusal {
    package var reason: Reason
    package var detail: String
    package var retryAfterSeconds: Int?
    /// Further response fields, `RateLimit` for example.
    package var fields: [(name: String, value: String)] = []
    /// Further members of the problem document.
    package var members: [(name: String, value: JSONValue)] = []
    /// A whole body of another shape (the OpenAI error object), instead of the problem document.
    package var body: (contentType: String, bytes: [UInt8])?

    package init(_ reason: Reason, detail: String = "", retryAfterSeconds: Int? = nil) {
        self.reason = reason
        self.detail = detail
        self.retryAfterSeconds = retryAfterSeconds
    }

    package func document(requestID: String) -> [UInt8] {
        var members: [(String, JSONValue)] = [
            ("type", .string("about:blank")), ("title", .string(reason.title)),
            ("status", .number(JSONNumber(reason.status))), ("reason", .string(reason.name)),
            ("request_id", .string(requestID)),
        ]
        if !detail.isEmpty { members.append(("detail", .string(detail))) }
        for member in self.members { members.append((member.name, member.value)) }
        var object = JSONObject()
        for (name, value) in members { object[name] = value }
        return JSONValue.object(object).bytes
    }
}
