import SidecarCore
import WeirCore
import WeirLedger
import WeirMeshProtocol

/// What the control plane says about a caller.
package enum SubjectOutcome: Hashable, Sendable {
    case bound(SubjectBinding)
    /// Not known, revoked, expired: the caller's fault.
    case refused(MeshRefusal)
    /// The control plane is away and nothing is remembered of this caller.
    case unavailable
}

extension Uplink {
    /// Who a caller is to the ledger. From the cache while it is fresh; otherwise one lookup for
    /// all who ask for the same subject; while the control plane is away, what was known last.
    /// Leases of the accounts of `opening`, which the subject is likely to have, are asked for in
    /// the same message.
    package func subject(
        _ request: SubjectRequest, opening: [AccountTerms] = []
    ) async -> SubjectOutcome {
        if let binding = subjects.fresh(request, now: loop.nowNanoseconds) {
            refresh(request)
            return .bound(binding)
        }
        guard isReady else { return remembered(request) }
        guard lookups[request] != nil || hasRoomToLookUp(request) else {
            return remembered(request)
        }
        return await withCheckedContinuation { continuation in
            let isUnderWay = lookups[request] != nil
            lookups[request, default: []].append(continuation)
            if !isUnderWay { loop.spawn { await self.lookUp(request, opening) } }
        }
    }

    /// Nobody waits for it.
    private func refresh(_ request: SubjectRequest) {
        guard subjects.isDue(request, now: loop.nowNanoseconds), lookups[request] == nil, isReady,
            hasRoomToLookUp(request)
        else { return }
        lookups[request] = []
        loop.spawn { await self.lookUp(request, []) }
    }

    /// Keys that nobody made cost a lookup each, and must not keep verified tokens from theirs.
    private func hasRoomToLookUp(_ request: SubjectRequest) -> Bool {
        guard lookups.count < UplinkLimits.subjectLookupsMax else { return false }
        return request.apiKeyHash == nil
            || lookups.keys.count { $0.apiKeyHash != nil } < UplinkLimits.keyLookupsMax
    }

    func subjectsChanged(_ users: [String]) {
        subjectChanges += 1
        if users.isEmpty { subjects.expireAll() } else { subjects.forget(Set(users)) }
    }

    private func remembered(_ request: SubjectRequest) -> SubjectOutcome {
        subjects.stale(request, now: loop.nowNanoseconds).map { .bound($0) } ?? .unavailable
    }

    private func lookUp(_ request: SubjectRequest, _ opening: [AccountTerms]) async {
        let outcome: SubjectOutcome
        let changes = subjectChanges
        do {
            let binding = try await ask(request, opening)
            if changes == subjectChanges {
                subjects.insert(request, binding, now: loop.nowNanoseconds)
            }
            outcome = .bound(binding)
        } catch let refusal as MeshRefusal where refusal.isAboutCaller {
            subjects.remove(request)
            outcome = .refused(refusal)
        } catch {
            hooks.log.warning("subject failed", ("error", describe(error)))
            outcome = remembered(request)
        }
        for waiting in lookups.removeValue(forKey: request) ?? [] {
            waiting.resume(returning: outcome)
        }
    }

    private func ask(
        _ request: SubjectRequest, _ opening: [AccountTerms]
    ) async throws -> SubjectBinding {
        let demand = opening.isEmpty ? nil : ledger?.takeOpening(opening)
        let acquire = demand?.request.acquire ?? []
        var leases: LeasesResponse?
        defer { if !acquire.isEmpty { demand?.answered(leases) } }
        let answer = try await post(
            MeshPath.subject, SubjectLookup(subject: request, acquire: acquire),
            answer: SubjectAnswer.self)
        if let answered = answer.leases, answered.grants.count == acquire.count {
            leases = answered
        }
        return answer.binding
    }
}
