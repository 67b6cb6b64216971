import SidecarCore
import WeirCore

/// A field of a request or an answer; the name is in lower case.
package struct GatewayField: Hashable, Sendable {
    package var name: String
    package var value: String

    package init(_ name: String, _ value: String) {
        self.name = name
        self.value = value
    }
}

/// A request to one of the gateway's own endpoints, its body whole.
package struct GatewayRequest: Sendable {
    /// `req_` and an identifier.
    package var id: String
    package var method: String
    /// Without the query.
    package var path: String
    /// Without the question mark.
    package var query: String?
    /// The path of the endpoint that it is for, as the table of endpoints has it.
    package var endpoint = ""
    /// Of the endpoint's path, by name.
    package var parameters: [String: String] = [:]
    package var fields: [GatewayField]
    package var body: [UInt8]

    package init(
        id: String, method: String, path: String, query: String? = nil, fields: [GatewayField],
        body: [UInt8]
    ) {
        self.id = id
        self.method = method
        self.path = path
        self.query = query
        self.fields = fields
        self.body = body
    }

    /// The value of a field that may come once; `nil` when it is absent or repeats, because two
    /// readers could take two different ones.
    func field(_ name: String) -> String? {
        let values = fields.filter { $0.name == name }
        return values.count == 1 ? values[0].value : nil
    }
}

/// Takes the pieces of a streamed answer.
package protocol AnswerWriter: Sendable {
    /// Sends at once, and waits while the client does not take it. Throws when the client is gone.
    func write(_ bytes: [UInt8]) async throws(CancellationError)
    /// One of those that the answer announced.
    func addTrailer(_ field: GatewayField)
}

package struct GatewayAnswer: Sendable {
    package enum Body: Sendable {
        case bytes([UInt8])
        /// Written piece by piece. Throwing cuts the answer short, visibly for the client.
        case stream(@Sendable (any AnswerWriter) async throws -> Void)
    }

    package var status: Int
    package var fields: [GatewayField]
    package var body: Body
    /// The value of the `Trailer` field of a streamed answer.
    package var trailerNames: StaticString?

    package init(
        status: Int, fields: [GatewayField], body: Body, trailerNames: StaticString? = nil
    ) {
        self.status = status
        self.fields = fields
        self.body = body
        self.trailerNames = trailerNames
    }

    static func json(_ status: Int, _ value: JSONValue, _ fields: [GatewayField]) -> GatewayAnswer {
        GatewayAnswer(
            status: status,
            fields: [GatewayField("content-type", "application/json")] + fields,
            body: .bytes(value.bytes))
    }

    /// A refusal in the form that clients of the path expect.
    static func refusal(
        _ refusal: GatewayRefusal, of request: GatewayRequest
    ) -> GatewayAnswer {
        let fields =
            refusal.reason.status == 401 ? [GatewayField("www-authenticate", "Bearer")] : []
        let isOpenAI = request.path.hasPrefix("/v1/") || request.path.hasPrefix("/outbound/v1/")
        return isOpenAI
            ? openAIError(refusal, fields) : problem(refusal, requestID: request.id, fields)
    }

    private static func openAIError(
        _ refusal: GatewayRefusal, _ fields: [GatewayField]
    ) -> GatewayAnswer {
        var error = OpenAIError(
            refusal.reason, message: refusal.detail,
            parameter: refusal.problems.first.map { String($0.path.dropFirst()) })
        error.members = refusal.members.members.map { ($0.key, $0.value) }
        var all = [GatewayField("weir-decision", refusal.reason.name)]
        if !OpenAIError.isWorthRetrying(refusal.reason) {
            all.append(GatewayField("x-should-retry", "false"))
        }
        if let seconds = refusal.retryAfterSeconds {
            all.append(GatewayField("retry-after", String(seconds)))
        }
        return .json(refusal.reason.status, error.json, all + refusal.fields + fields)
    }

    /// RFC 9457, in the shape of the sidecar's own refusals.
    static func problem(
        _ refusal: GatewayRefusal, requestID: String, _ fields: [GatewayField]
    ) -> GatewayAnswer {
        let reason = refusal.reason
        var document: JSONObject = [
            "type": "about:blank", "title": .string(reason.title),
            "status": .number(JSONNumber(reason.status)), "reason": .string(reason.name),
            "request_id": .string(requestID), "detail": .string(refusal.detail),
        ]
        if !refusal.problems.isEmpty {
            document["errors"] = .array(
                refusal.problems.map {
                    ["pointer": .string($0.path), "detail": .string($0.message)]
                })
        }
        for (name, value) in refusal.members.members { document[name] = value }
        var all = [
            GatewayField("content-type", "application/problem+json"),
            GatewayField("weir-decision", reason.name),
        ]
        if let seconds = refusal.retryAfterSeconds {
            all.append(GatewayField("retry-after", String(seconds)))
        }
        return GatewayAnswer(
            status: reason.status, fields: all + refusal.fields + fields,
            body: .bytes(JSONValue.object(document).bytes))
    }
}
