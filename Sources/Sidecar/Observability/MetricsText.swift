/// Writes the Prometheus text format, version 0.0.4.
package struct MetricsText {
    package enum Kind: String, Sendable { case counter, gauge, histogram }

    package private(set) var bytes: [UInt8] = []

    package init() {}

    /// Before the samples of the family, once.
    package mutating func family(_ name: String, _ kind: Kind, help: String) {
        write("# HELP \(name) ")
        writeEscaped(help, quotes: false)
        write("\n# TYPE \(name) \(kind.rawValue)\n")
    }

    package mutating func sample(
        _ name: String, _ labels: [(String, String)] = [], _ value: String
    ) {
        write(name)
        if !labels.isEmpty {
            write("{")
            for (position, label) in labels.enumerated() {
                write(position == 0 ? "" : ",")
                write(label.0)
                write("=\"")
                writeEscaped(label.1, quotes: true)
                write("\"")
            }
            write("}")
        }
        write(" \(value)\n")
    }

    /// Billionths as a decimal number, exact: 1_500_000_000 → "1.5".
    package static func billionths(_ value: UInt64) -> String {
        let fraction = value % 1_000_000_000
        guard fraction > 0 else { return String(value / 1_000_000_000) }
        var digits = String(fraction)
        digits = String(repeating: "0", count: 9 - digits.utf8.count) + digits
        while digits.hasSuffix("0") { digits.removeLast() }
        return "\(value / 1_000_000_000).\(digits)"
    }

    private mutating func write(_ text: String) { bytes.append(contentsOf: text.utf8) }

    private mutating func writeEscaped(_ text: String, quotes: Bool) {
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "\\"): write("\\\\")
            case 0x0A: write("\\n")
            case UInt8(ascii: "\"") where quotes: write("\\\"")
            default: bytes.append(byte)
            }
        }
    }
}
