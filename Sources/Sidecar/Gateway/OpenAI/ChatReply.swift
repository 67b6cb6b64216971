import SidecarCore
import WeirCore

/// An answer that may go to the client: nothing of it was sent yet, so up to here another agent
/// could be tried.
struct ChatReply: Sendable {
    enum Content: Sendable {
        case whole([UInt8], AttemptReport)
        /// Goes on while it is written; the first piece is there.
        case stream(OpenAgentCall, first: [UInt8])
    }

    let prepared: AgentCaller.Prepared
    let status: Int
    let contentType: String
    let content: Content

    /// Statuses by which a provider says what is wrong with the request. They are the client's to
    /// see, and no other agent would like the request better; everything else that is no success
    /// is the agent's own trouble.
    private static let statusesOfTheRequest: Set<Int> = [400, 413, 422]

    /// Calls the agent and waits for the whole answer, or for the first bytes of a stream.
    static func open(
        _ prepared: AgentCaller.Prepared, at picked: EndpointPicker.Picked,
        by calls: AgentCaller, until deadline: UInt64
    ) async throws(AgentCaller.Failure) -> ChatReply {
        let call = try await calls.open(prepared, at: picked, until: deadline)
        let status = call.answer.status
        let contentType = call.answer.field("content-type") ?? "application/json"
        let isStream =
            (200..<300).contains(status) && contentType.hasPrefix("text/event-stream")
        let content: Content
        do throws(AgentCallError) {
            content = isStream ? try await begin(call) : try await read(call)
        } catch {
            var failure = AgentCaller.failure(call, error)
            failure.mayTryAnother = call.mayTryAnother(prepared.agent)
            throw failure
        }
        if case .whole(_, let attempt) = content {
            let isOfTheRequest =
                attempt.outcome == .admitted
                && statusesOfTheRequest.contains(status)
            if !isOfTheRequest, var failure = AgentCaller.failure(status, attempt) {
                failure.mayTryAnother = call.mayTryAnother(prepared.agent)
                throw failure
            }
        }
        return ChatReply(
            prepared: prepared, status: status, contentType: contentType, content: content)
    }

    private static func begin(_ call: OpenAgentCall) async throws(AgentCallError) -> Content {
        guard let first = try await call.next() else {
            throw AgentCallError(reason: .upstreamProtocol, wasSent: true)
        }
        return .stream(call, first: first)
    }

    private static func read(_ call: OpenAgentCall) async throws(AgentCallError) -> Content {
        let body = try await call.body(bytesMax: GatewayLimits.agentAnswerBytesMax)
        return .whole(body, call.end())
    }

    var isKept: Bool {
        switch content {
        case .whole(_, let attempt): attempt.isCached
        case .stream: false
        }
    }

    /// What is known of the attempt, which for a stream ends later.
    var model: String {
        switch content {
        case .whole(_, let attempt): attempt.model
        case .stream: prepared.bound.model
        }
    }
}

extension ChatReply {
    /// An answer from earlier.
    init(kept answer: CachedAnswer, _ attempt: AttemptReport, of prepared: AgentCaller.Prepared) {
        self.init(
            prepared: prepared, status: 200, contentType: answer.contentType,
            content: .whole(answer.body, attempt))
    }
}
