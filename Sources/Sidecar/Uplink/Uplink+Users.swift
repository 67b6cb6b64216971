import SidecarCore
import WeirCore
import WeirMeshProtocol

// Users' own requests, which pass through this process: nothing of them is kept here.

extension Uplink {
    package func ask(
        _ operation: UserOperation, _ request: UserRequest
    ) async -> MeshOutcome<JSONValue> {
        await call(MeshPath.user(operation), request)
    }

    /// Claims an idempotency key for a request, or ends the claim. Repeating either is safe.
    package func idempotency(
        _ request: IdempotencyRequest
    ) async -> MeshOutcome<IdempotencyResponse> {
        await call(MeshPath.idempotency, request)
    }

    /// A message that a user waits for: bounded in number and in time, and never sent twice.
    private func call<Answer: Decodable & Sendable>(
        _ path: String, _ message: some Encodable
    ) async -> MeshOutcome<Answer> {
        guard isReady, userCalls < UplinkLimits.userCallsMax else { return .unavailable }
        userCalls += 1
        defer { userCalls -= 1 }
        do {
            return .answered(
                try await post(
                    path, message, answer: Answer.self,
                    timeoutNanoseconds: UplinkLimits.userCallNanoseconds))
        } catch let refusal as MeshRefusal where refusal.isAboutCaller {
            return .refused(refusal)
        } catch {
            hooks.log.warning("a user's call failed", ("path", path), ("error", describe(error)))
            return .unavailable
        }
    }
}

extension MeshRefusal {
    /// A refusal that names one of our reasons with a 4xx status is about the caller; a status
    /// alone, or a control plane that cannot answer now, is not.
    var isAboutCaller: Bool {
        guard let reason = Reason(name: reason) else { return false }
        return (400..<500).contains(reason.status)
    }
}
