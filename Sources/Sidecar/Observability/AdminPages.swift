import WeirCore
import WeirPolicy

/// What the admin listener answers. Pure: the state comes in, status, media type and body go out.
package enum AdminPages {
    package struct Page: Hashable, Sendable {
        package let status: Int
        package let contentType: String
        package let body: [UInt8]
    }

    /// What readiness and `/config` are made of.
    package struct State: Sendable {
        /// Why it is not ready; empty when it is.
        package var notReady: [String] = []
        /// What works only in part.
        package var degraded: [String] = []
        package var policyVersion: PolicyVersion?
        /// The policy's documents as they came.
        package var documents: [JSONValue] = []
        /// Flags and environment as they were understood, by name.
        package var settings: [(name: String, value: String)] = []
        package var isDraining = false
        package init() {}
    }

    /// The page for a request of the admin listener; `nil` when there is none of that path.
    package static func page(path: String, state: State, metrics: Metrics) -> Page? {
        switch path {
        case "/metrics":
            Page(
                status: 200, contentType: "text/plain; version=0.0.4; charset=utf-8",
                body: metrics.exposition())
        case "/healthz": health()
        case "/readyz": readiness(state)
        case "/config": configuration(state)
        default: nil
        }
    }

    /// The process lives; that is all that a liveness probe should ask.
    private static func health() -> Page { json(200, ["status": "ok"]) }

    private static func readiness(_ state: State) -> Page {
        let reasons = state.notReady + (state.isDraining ? ["draining"] : [])
        let word = reasons.isEmpty ? (state.degraded.isEmpty ? "ready" : "degraded") : "not ready"
        return json(
            reasons.isEmpty ? 200 : 503,
            [
                "status": .string(word), "reasons": .array(reasons.map(JSONValue.string)),
                "degraded": .array(state.degraded.map(JSONValue.string)),
            ])
    }

    private static func configuration(_ state: State) -> Page {
        var settings = JSONObject()
        for setting in state.settings {
            let isSecret = LogRecord.isSecret(setting.name) || setting.name.hasSuffix("_KEY")
            settings[setting.name] = .string(isSecret ? "[redacted]" : setting.value)
        }
        var version = JSONValue.null
        if let known = state.policyVersion {
            version = [
                "epoch": .number(JSONNumber(known.epoch)),
                "number": .number(JSONNumber(known.number)), "hash": .string(known.hash),
            ]
        }
        return json(
            200,
            [
                "policy_version": version, "settings": .object(settings),
                "documents": .array(state.documents.map(redacted)),
            ])
    }

    /// Documents hold names of credentials and no secrets; what somebody put there all the same is
    /// not shown: values of members that are named like a secret. `credential` is such a name.
    static func redacted(_ value: JSONValue) -> JSONValue {
        switch value {
        case .object(let object):
            var result = JSONObject()
            for (key, member) in object.members {
                let hides =
                    member.object == nil && member.array == nil && member.string != nil
                    && key != "credential" && LogRecord.isSecret(key)
                result[key] = hides ? "[redacted]" : redacted(member)
            }
            return .object(result)
        case .array(let array): return .array(array.map(redacted))
        case .null, .bool, .number, .string: return value
        }
    }

    private static func json(_ status: Int, _ value: JSONValue) -> Page {
        Page(
            status: status, contentType: "application/json",
            body: Array((value.prettyText + "\n").utf8))
    }
}
