import WeirCore

// What endpoints read out of a request.

extension GatewayRequest {
    func checkIsJSON() throws(GatewayRefusal) {
        let type = field("content-type")?.split(separator: ";").first
        let name = type.map { String($0.filter { $0 != " " && $0 != "\t" }).lowercased() }
        guard name == "application/json" else {
            throw GatewayRefusal(.mediaType, "The body must be application/json.")
        }
    }

    /// The body, which must be JSON.
    func json() throws(GatewayRefusal) -> JSONValue {
        try checkIsJSON()
        do throws(JSONError) {
            return try JSON.parse(body)
        } catch {
            let reason: Reason = error.kind == .duplicateKey ? .duplicateKey : .malformed
            throw GatewayRefusal(reason, "The body: \(error).")
        }
    }

    /// The parameters of the path and of the query by name, decoded. A name that comes twice is
    /// refused, because two readers could take two different values.
    func allParameters() throws(GatewayRefusal) -> [String: String] {
        var all: [String: String] = [:]
        func add(_ name: String?, _ value: String?) throws(GatewayRefusal) {
            guard let name, let value, !name.isEmpty else {
                throw GatewayRefusal(.malformed, "The path or the query is not well encoded.")
            }
            guard all.updateValue(value, forKey: name) == nil else {
                throw GatewayRefusal(.malformed, "The parameter \(name) comes twice.")
            }
        }
        for (name, value) in parameters { try add(name, Self.decoded(value[...])) }
        for pair in (query ?? "").split(separator: "&") {
            let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            let value = parts.count == 2 ? parts[1] : ""
            try add(
                Self.decoded(parts[0], isQuery: true), Self.decoded(value, isQuery: true))
        }
        return all
    }

    /// Percent-decoded (RFC 3986 §2.1), in a query with `+` for a space as HTML forms write it;
    /// `nil` for what is not encoded well or no UTF-8.
    private static func decoded(_ text: Substring, isQuery: Bool = false) -> String? {
        var bytes: [UInt8] = []
        var rest = text.utf8[...]
        while let byte = rest.popFirst() {
            switch byte {
            case UInt8(ascii: "%"):
                guard let high = rest.popFirst(), let low = rest.popFirst(),
                    let first = digit(high), let second = digit(low)
                else { return nil }
                bytes.append(first << 4 | second)
            case UInt8(ascii: "+") where isQuery: bytes.append(UInt8(ascii: " "))
            default: bytes.append(byte)
            }
        }
        return String(validating: bytes, as: UTF8.self)
    }

    private static func digit(_ byte: UInt8) -> UInt8? {
        switch byte {
        case 48...57: byte - 48
        case 65...70: byte - 55
        case 97...102: byte - 87
        default: nil
        }
    }
}
