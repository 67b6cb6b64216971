import SidecarCore
import WeirCore
import WeirCrypto
import WeirMeshProtocol

/// Carries a request with an `Idempotency-Key` out once for its user: what comes again with the
/// same body gets the stored answer, and what comes while it runs is told so. The keys are the
/// control plane's, so that they hold at every gateway.
///
/// Work that is under a key goes on when its caller leaves, because the caller will come again for
/// the answer. A gateway that dies leaves a claim, which ends by itself a little after the
/// request's deadline; then the request may be carried out again.
struct IdempotentRequests: Sendable {
    static let headerName = "idempotency-key"
    static let replayedName = "weir-idempotent-replayed"

    let tell: @Sendable (IdempotencyRequest) async -> MeshOutcome<IdempotencyResponse>

    /// What a request is carried out under.
    struct Key: Sendable {
        let user: String
        let key: String
        let bodyHash: String
        /// Names this attempt: a claim belongs to one.
        let claim: String
        let milliseconds: Int64
    }

    /// `nil` for a request without a key.
    static func key(
        of request: GatewayRequest, user: String, timeoutMilliseconds: Int64
    ) throws(GatewayRefusal) -> Key? {
        let values = request.fields.filter { $0.name == headerName }.map(\.value)
        guard let key = values.first else { return nil }
        guard values.count == 1,
            (1...GatewayLimits.idempotencyKeyBytesMax).contains(key.utf8.count),
            key.utf8.allSatisfy({ $0 > 32 && $0 < 127 })
        else {
            throw GatewayRefusal(
                .malformed,
                "The Idempotency-Key must be one text of 1 to "
                    + "\(GatewayLimits.idempotencyKeyBytesMax) visible ASCII characters.")
        }
        if request.acceptsEvents {
            throw GatewayRefusal(
                .invalid, "A stream of events cannot be replayed: leave Idempotency-Key out.",
                problems: [Problem(path: "/headers/accept", message: "must be application/json")])
        }
        let message = Array("\(request.method) \(request.endpoint)\n".utf8)
        let body = try request.json().canonicalBytes
        return Key(
            user: user, key: key, bodyHash: Hex.encode(Crypto.sha256(message + body)),
            claim: request.id,
            milliseconds: timeoutMilliseconds + GatewayLimits.idempotencyMarginMilliseconds)
    }

    /// The stored answer; `nil` when this request is to be carried out now.
    func claim(_ key: Key) async throws(GatewayRefusal) -> GatewayAnswer? {
        let outcome = await tell(message(key, .claim(milliseconds: key.milliseconds)))
        guard case .answered(let response) = outcome else {
            throw GatewayRefusal(
                .controlPlaneLost,
                "Whether this key was used cannot be looked up now; nothing was carried out.",
                retryAfterSeconds: 1)
        }
        switch response.state {
        case .new: return nil
        case .inFlight:
            throw GatewayRefusal(
                .idempotencyInFlight, "The request with this key is still carried out.",
                retryAfterSeconds: 1)
        case .mismatch:
            throw GatewayRefusal(
                .invalid, "This key was used with another request within the last day.",
                problems: [
                    Problem(path: "", message: "differs from the body that the key came with")
                ])
        case .stored, .released:
            guard let answer = response.answer else {
                throw GatewayRefusal(
                    .controlPlaneLost, "The stored answer cannot be read.", retryAfterSeconds: 1)
            }
            return GatewayAnswer(replaying: answer)
        }
    }

    /// Runs the work to its end, whoever leaves meanwhile, and stores its answer or gives the key
    /// back. The caller gets the answer after it is stored, or after the first try to.
    func run(
        _ key: Key, on worker: GatewayWorker,
        _ work: @escaping @Sendable () async -> Result<GatewayAnswer, GatewayRefusal>
    ) async throws(GatewayRefusal) -> GatewayAnswer {
        let (results, continuation) = AsyncStream.makeStream(
            of: Result<GatewayAnswer, GatewayRefusal>.self, bufferingPolicy: .bufferingNewest(1))
        worker.spawn {
            let result = await work()
            let message = ending(of: result, key)
            var isTold = await isTold(message)
            continuation.yield(result)
            continuation.finish()
            for _ in 1..<GatewayLimits.idempotencyTriesMax where !isTold {
                let pause = worker.clock.nowNanoseconds + GatewayLimits.idempotencyRetryNanoseconds
                try? await worker.clock.sleep(untilNanoseconds: pause)
                isTold = await self.isTold(message)
            }
        }
        for await result in results { return try result.get() }
        throw GatewayRefusal(.cancelled, "The caller went away.")
    }

    private func isTold(_ message: IdempotencyRequest) async -> Bool {
        switch await tell(message) {
        case .answered, .refused: true
        case .unavailable: false
        }
    }

    private func ending(
        of result: Result<GatewayAnswer, GatewayRefusal>, _ key: Key
    ) -> IdempotencyRequest {
        guard case .success(let answer) = result,
            let stored = StoredAnswer(keeping: answer, requestID: key.claim)
        else { return message(key, .release) }
        return message(key, .complete(stored))
    }

    private func message(_ key: Key, _ action: IdempotencyRequest.Action) -> IdempotencyRequest {
        IdempotencyRequest(
            user: key.user, key: key.key, bodyHash: key.bodyHash, claim: key.claim, action: action)
    }
}

extension StoredAnswer {
    private static let fieldNames: Set = ["weir-decision", "weir-agent", "weir-model"]

    /// `nil` for what is not the end of a request: a refusal that a later try may not meet (402,
    /// 429, 503 and the like). What an agent failed at (502) or had no time for (504) is an end:
    /// it may have cost something, and another key is how to try anew.
    init?(keeping answer: GatewayAnswer, requestID: String) {
        guard [200, 502, 504].contains(answer.status), case .bytes(let bytes) = answer.body else {
            return nil
        }
        guard bytes.count <= MeshLimits.storedAnswerBytesMax else {
            let refusal = GatewayRefusal(
                .tooLarge, "The answer under this key was too large to be kept for a replay.")
            self.init(.problem(refusal, requestID: requestID, []))
            return
        }
        self.init(answer)
    }

    private init(_ answer: GatewayAnswer) {
        var fields: [String: String] = [:]
        for field in answer.fields where Self.fieldNames.contains(field.name) {
            fields[field.name] = field.value
        }
        var body: [UInt8] = []
        if case .bytes(let bytes) = answer.body { body = bytes }
        self.init(
            status: answer.status,
            contentType: answer.fields.first { $0.name == "content-type" }?.value ?? "",
            body: String(decoding: body, as: UTF8.self), fields: fields)
    }
}

extension GatewayAnswer {
    /// As it was, but for what it costs now, and with a header that says so.
    init(replaying answer: StoredAnswer) {
        let kept = answer.fields.sorted { $0.key < $1.key }.map { GatewayField($0.key, $0.value) }
        self.init(
            status: answer.status,
            fields: [
                GatewayField("content-type", answer.contentType),
                GatewayField(IdempotentRequests.replayedName, "true"),
                GatewayField("weir-cost-usd", NanoUSD.zero.usd),
                GatewayField("cache-control", "no-store"),
            ] + kept,
            body: .bytes(Array(answer.body.utf8)))
    }
}
