import WeirCore

/// W3C Trace Context: which trace a request belongs to. A gateway goes on with the caller's trace,
/// or begins one, and gives each call to an agent a span of its own.
package struct TraceContext: Hashable, Sendable {
    package static let headerName = "traceparent"

    /// 32 and 16 lower-case hexadecimal digits.
    package let traceID: String
    package let spanID: String
    package let flags: String

    /// Reads "00-TRACE-SPAN-FLAGS"; `nil` for anything else, so that a new trace begins
    /// (§3.2.2.3). Later versions may append fields, version ff is forbidden.
    package init?(_ header: String) {
        let parts = header.split(separator: "-", omittingEmptySubsequences: false).map(String.init)
        guard parts.count >= 4, Self.isHex(parts[0], 2), parts[0] != "ff",
            parts[0] != "00" || parts.count == 4,
            Self.isHex(parts[1], 32), parts[1].utf8.contains(where: { $0 != 48 }),
            Self.isHex(parts[2], 16), parts[2].utf8.contains(where: { $0 != 48 }),
            Self.isHex(parts[3], 2)
        else { return nil }
        traceID = parts[1]
        spanID = parts[2]
        flags = parts[3]
    }

    /// A new trace, or a new span of a trace; 8 or 24 random bytes come in.
    package init(parent: TraceContext?, random: [UInt8]) {
        let digits = Hex.encode(random)
        spanID = String(digits.prefix(16))
        traceID = parent?.traceID ?? String(digits.suffix(32))
        flags = parent?.flags ?? "01"
    }

    package var header: String { "00-\(traceID)-\(spanID)-\(flags)" }

    private static func isHex(_ text: String, _ count: Int) -> Bool {
        text.utf8.count == count
            && text.utf8.allSatisfy { (48...57).contains($0) || (97...102).contains($0) }
    }
}
