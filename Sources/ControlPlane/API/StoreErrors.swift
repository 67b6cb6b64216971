import ControlPlaneStore
import HTTPTypes
import WeirCore
import WeirMeshProtocol

// What errors of the store mean to a caller.

extension RedisError: APIProblemConvertible {
    /// Whatever Redis says or does not say: now is not the time, later may be. Its words go to the
    /// log.
    var apiProblem: APIProblem {
        switch self {
        case .queueFull: .unavailable("Too much waits for Redis already.")
        case .timeout, .connectionLost, .closed: .unavailable("Redis does not answer.")
        case .server, .unexpectedReply, .invalidURL: .unavailable("Redis cannot serve this now.")
        }
    }
}

extension PolicyConflict: APIProblemConvertible {
    var apiProblem: APIProblem {
        let active = current.map { "version \($0)" } ?? "no policy"
        return .conflict("Active is \(active) meanwhile; nothing was changed.")
    }
}

extension MeshRefusal: APIProblemConvertible {
    var apiProblem: APIProblem {
        let known = Reason(name: reason)
        return APIProblem(
            status: HTTPResponse.Status(code: known?.status ?? 400), reason: reason,
            title: known?.title ?? "Refused", detail: detail)
    }
}

extension APIKeyConflict: APIProblemConvertible {
    var apiProblem: APIProblem {
        let detail: String
        switch self {
        case .bound(let tier, let tenant):
            let place = tenant.map { "tier \(tier) and tenant \($0)" } ?? "tier \(tier)"
            detail = "The user is bound to \(place); change that first."
        case .tooMany: detail = "There are too many keys; revoke those that are over."
        }
        return APIProblem(
            status: .conflict, reason: "conflict", title: "This does not fit what is there",
            detail: detail)
    }
}

extension Problem: APIProblemConvertible {
    var apiProblem: APIProblem {
        APIProblem(
            status: .unprocessableContent, reason: Reason.invalid.name,
            title: Reason.invalid.title, detail: message, problems: [self])
    }
}

extension Problems: APIProblemConvertible {
    var apiProblem: APIProblem {
        APIProblem(
            status: .unprocessableContent, reason: Reason.invalid.name,
            title: Reason.invalid.title,
            detail: "The body has \(list.count == 1 ? "a problem" : "problems").", problems: list)
    }
}

extension ArchiveError: APIProblemConvertible {
    var apiProblem: APIProblem {
        switch self {
        case .conflict(let incarnation, let sequence):
            APIProblem(
                status: .conflict, reason: "record_conflict", title: "Another record is stored",
                detail:
                    "Record \(sequence) of incarnation \(incarnation) differs from the stored one.")
        case .tooManyRows(let count):
            APIProblem.parameter(
                "by",
                "more than \(count) rows: fewer dimensions or a shorter time are needed")
        case .unreachable: .unavailable("The archive's database cannot be reached.")
        case .busy: .unavailable("Too much waits for the archive already.")
        case .closed, .database: .unavailable("The archive cannot serve this now.")
        }
    }
}
