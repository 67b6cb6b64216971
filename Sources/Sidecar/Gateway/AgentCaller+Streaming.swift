import WeirCore

extension AgentCaller {
    /// As `call`, with a chat agent's words as they come. The answer is the completion as if it had
    /// come whole, so whoever reads it need not know.
    func stream(
        _ prepared: Prepared, at picked: EndpointPicker.Picked, until deadline: UInt64,
        onWords: @Sendable (String) -> Void
    ) async throws(Failure) -> Answer {
        let call = try await open(prepared, at: picked, until: deadline)
        // Errors come whole, and so does everything from an agent that cannot stream.
        guard (200..<300).contains(call.answer.status), call.answer.isEventStream else {
            return try await read(call, of: prepared.agent)
        }
        do throws(Failure) {
            return try await readStream(call, onWords: onWords)
        } catch {
            var failure = error
            failure.mayTryAnother = call.mayTryAnother(prepared.agent)
            throw failure
        }
    }

    private func readStream(
        _ call: OpenAgentCall, onWords: @Sendable (String) -> Void
    ) async throws(Failure) -> Answer {
        var chunks = ChatChunks()
        while let piece = try await next(of: call) {
            do throws(ChatChunks.Broken) {
                let words = try chunks.feed(piece)
                if !words.isEmpty { onWords(words) }
            } catch {
                throw Self.broken(call, error)
            }
        }
        let attempt = call.end()
        if let failure = Self.failure(call.answer.status, attempt) { throw failure }
        do throws(ChatChunks.Broken) {
            return Answer(
                status: call.answer.status, body: try chunks.completion(), attempt: attempt)
        } catch {
            throw Self.broken(call, error)
        }
    }

    private func next(of call: OpenAgentCall) async throws(Failure) -> [UInt8]? {
        do throws(AgentCallError) {
            return try await call.next()
        } catch {
            throw Self.failure(call, error)
        }
    }

    private static func broken(_ call: OpenAgentCall, _ error: ChatChunks.Broken) -> Failure {
        var attempt = call.end()
        attempt.outcome = .upstreamError
        return Failure(
            attempt: attempt, detail: "\(attempt.agent) broke off its stream: \(error.detail).")
    }
}

extension AgentAnswerStream {
    fileprivate var isEventStream: Bool {
        let type = field("content-type")?.split(separator: ";").first ?? ""
        return type.filter { $0 != " " }.lowercased() == "text/event-stream"
    }
}
