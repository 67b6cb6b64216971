import SidecarCore
import WeirCore

/// What an operator decides about a gateway, read and checked by the program's options.
package struct GatewayConfiguration: Sendable {
    package var verifier: TokenVerifier
    package var origins: AllowedOrigins
    package var analysesMax: Int

    package init(
        verifier: TokenVerifier, origins: AllowedOrigins = AllowedOrigins([]),
        analysesMax: Int = GatewayLimits.analysesDefaultMax
    ) {
        self.verifier = verifier
        self.origins = origins
        self.analysesMax = analysesMax
    }
}

/// Which web pages may read the gateway's answers (Fetch, "CORS protocol"). Tokens come in a header
/// that pages set themselves, never in cookies, so credentials are not allowed.
package struct AllowedOrigins: Hashable, Sendable {
    private let origins: Set<String>
    private let isAny: Bool

    package init(_ origins: [String]) {
        self.origins = Set(origins)
        isAny = origins.contains("*")
    }

    /// `nil` when it is not an array of origins: scheme, host and port, without a path.
    package init?(json text: String) {
        guard let value = try? JSON.parse(text), let array = value.array,
            array.count <= GatewayLimits.originsMax
        else { return nil }
        let origins = array.compactMap(\.string)
        guard origins.count == array.count, origins.allSatisfy(Self.isOrigin) else { return nil }
        self.init(origins)
    }

    private static func isOrigin(_ text: String) -> Bool {
        if text == "*" { return true }
        let schemes = ["http://", "https://"]
        guard let scheme = schemes.first(where: { text.hasPrefix($0) }) else { return false }
        let rest = text.dropFirst(scheme.count)
        return !rest.isEmpty && rest.utf8.allSatisfy { $0 > 32 && $0 < 127 && $0 != 47 }
    }

    /// Fields for the answer to a page of that origin; empty when it is not allowed. `Vary` is
    /// there whenever the answer depends on the origin, so that no cache gives it to another page.
    func fields(for origin: String?) -> [GatewayField] {
        guard isAny || !origins.isEmpty else { return [] }
        var fields = isAny ? [] : [GatewayField("vary", "origin")]
        guard let origin, isAny || origins.contains(origin) else { return fields }
        fields.append(GatewayField("access-control-allow-origin", isAny ? "*" : origin))
        fields.append(
            GatewayField(
                "access-control-expose-headers",
                "weir-request-id, weir-decision, weir-agent, weir-model, weir-max-tokens, "
                    + "weir-cost-usd, weir-budget-remaining-usd, weir-budget-warning, weir-cache, "
                    + "weir-idempotent-replayed, weir-policy-version, ratelimit, "
                    + "ratelimit-policy, retry-after, traceparent"))
        return fields
    }

    func preflightFields(for origin: String?, methods: [String]) -> [GatewayField] {
        let fields = fields(for: origin)
        guard fields.contains(where: { $0.name == "access-control-allow-origin" }) else {
            return fields
        }
        return fields + [
            GatewayField("access-control-allow-methods", methods.joined(separator: ", ")),
            GatewayField(
                "access-control-allow-headers",
                "authorization, content-type, idempotency-key, traceparent, weir-tags"),
            GatewayField("access-control-max-age", "600"),
        ]
    }
}
