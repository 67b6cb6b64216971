/// Money in billionths of a US dollar (n$). An integer, because money is never approximate.
///
/// On the mesh wire an amount is a decimal string of n$ ("120000"); users see a decimal string in
/// USD with at least six decimals ("0.000120"). Arithmetic saturates instead of trapping: usage
/// comes from the wire, and a saturated amount is refused by every budget.
package struct NanoUSD: Hashable, Sendable, Comparable {
    package var rawValue: Int64

    package init(_ rawValue: Int64) { self.rawValue = rawValue }

    package static let zero = NanoUSD(0)
    /// The largest limit of an account: 2^53 − 1 n$, because Redis scripts compare in doubles.
    package static let limitMax = NanoUSD((1 << 53) - 1)
    package static let nanoPerUSD: Int64 = 1_000_000_000

    package static func < (left: NanoUSD, right: NanoUSD) -> Bool { left.rawValue < right.rawValue }

    package static func + (left: NanoUSD, right: NanoUSD) -> NanoUSD {
        let (sum, overflow) = left.rawValue.addingReportingOverflow(right.rawValue)
        return NanoUSD(overflow ? (right.rawValue > 0 ? .max : .min) : sum)
    }

    package static func - (left: NanoUSD, right: NanoUSD) -> NanoUSD {
        let (difference, overflow) = left.rawValue.subtractingReportingOverflow(right.rawValue)
        return NanoUSD(overflow ? (right.rawValue < 0 ? .max : .min) : difference)
    }

    package static func += (left: inout NanoUSD, right: NanoUSD) { left = left + right }
    package static func -= (left: inout NanoUSD, right: NanoUSD) { left = left - right }

    /// The cost of `quantity` units at `pricePerMillion`, rounded up, saturating.
    package static func cost(quantity: Int64, pricePerMillion: NanoUSD) -> NanoUSD {
        guard quantity > 0, pricePerMillion.rawValue > 0 else { return .zero }
        let product = Int128(quantity) * Int128(pricePerMillion.rawValue)
        let roundedUp = (product + 999_999) / 1_000_000
        return NanoUSD(Int64(clamping: roundedUp))
    }
}

extension NanoUSD: CustomStringConvertible {
    /// The decimal string of n$ that the mesh wire carries.
    package var description: String { String(rawValue) }

    /// Reads the mesh wire's form: an optional minus sign and decimal digits, nothing else.
    package init?(wire text: some StringProtocol) {
        guard let value = Int64(text), !text.hasPrefix("+") else { return nil }
        self.init(value)
    }
}

extension NanoUSD {
    /// USD with at least six and at most nine decimals: "0.000120", "5.000000", "0.000000001".
    package var usd: String {
        let magnitude = rawValue.magnitude
        let whole = magnitude / UInt64(Self.nanoPerUSD)
        var digits = String(magnitude % UInt64(Self.nanoPerUSD))
        digits = String(repeating: "0", count: 9 - digits.count) + digits
        while digits.count > 6, digits.hasSuffix("0") { digits.removeLast() }
        return (rawValue < 0 ? "-" : "") + String(whole) + "." + digits
    }

    /// Reads a decimal in USD ("5", "0.25", "12.000000001"): digits, at most nine decimals, no
    /// exponent, no sign but a leading minus. `nil` when it is not one or does not fit.
    package init?(usd text: some StringProtocol) {
        var rest = text[...]
        let negative = rest.hasPrefix("-")
        if negative { rest = rest.dropFirst() }
        let parts = rest.split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count == 1 || parts.count == 2, let whole = parts.first, !whole.isEmpty,
            whole.utf8.allSatisfy({ (48...57).contains($0) })
        else { return nil }
        let decimals = parts.count == 2 ? parts[1] : ""
        guard parts.count == 1 || !decimals.isEmpty, decimals.utf8.count <= 9,
            decimals.utf8.allSatisfy({ (48...57).contains($0) })
        else { return nil }
        let padded = String(decimals) + String(repeating: "0", count: 9 - decimals.utf8.count)
        guard let units = Int64(whole), let nano = Int64(padded) else { return nil }
        let (scaled, overflow) = units.multipliedReportingOverflow(by: Self.nanoPerUSD)
        let (sum, overflowAdd) = scaled.addingReportingOverflow(nano)
        guard !overflow, !overflowAdd else { return nil }
        self.init(negative ? -sum : sum)
    }
}

extension NanoUSD: Codable {
    package init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        let text = try container.decode(String.self)
        guard let value = NanoUSD(wire: text) else {
            throw DecodingError.dataCorruptedError(
                in: container, debugDescription: "not an amount in n$: a decimal string is needed")
        }
        self = value
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(description)
    }
}
