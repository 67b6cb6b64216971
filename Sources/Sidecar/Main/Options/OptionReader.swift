import SidecarCore
import WeirCore

/// Reads texts as what they shall be and gathers every problem, so that a user mends all of them at
/// once.
struct OptionReader {
    let values: OptionValues
    /// A host name to its addresses; the system's resolver, which blocks.
    let resolve: (String) -> [SocketAddress]
    private(set) var problems: [OptionProblem] = []

    init(_ values: OptionValues, resolve: @escaping (String) -> [SocketAddress]) {
        self.values = values
        self.resolve = resolve
    }

    mutating func report(_ name: String, _ message: String) {
        let option = values.table.first { $0.name == name }
        let shown =
            values[name].map(\.origin)
            ?? (option?.hasArgument == false ? option?.environment : nil) ?? "--" + name
        problems.append(OptionProblem(option: shown, message: message))
    }

    func isSet(_ name: String) -> Bool { values[name] != nil }

    func flag(_ name: String) -> Bool {
        ["true", "1", "yes", "on"].contains(values[name]?.text.lowercased() ?? "")
    }

    mutating func text(_ name: String, required: Bool = false) -> String? {
        guard let text = values[name]?.text, !text.isEmpty else {
            if required { report(name, "is needed") }
            return nil
        }
        return text
    }

    mutating func integer(_ name: String, in range: ClosedRange<Int>) -> Int? {
        guard let text = text(name) else { return nil }
        guard let value = Int(text), range.contains(value) else {
            report(
                name, "\"\(text)\" is no number from \(range.lowerBound) to \(range.upperBound)")
            return nil
        }
        return value
    }

    /// "1048576", "64KiB", "10MiB", "1GiB".
    mutating func byteCount(_ name: String, in range: ClosedRange<Int>) -> Int? {
        guard let text = text(name) else { return nil }
        let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)]
        let unit = units.first { text.hasSuffix($0.0) }
        let digits = unit.map { String(text.dropLast($0.0.count)) } ?? text
        guard let number = Int(digits), number >= 0,
            case let (bytes, overflow) = number.multipliedReportingOverflow(
                by: 1 << (unit?.1 ?? 0)), !overflow, range.contains(bytes)
        else {
            report(name, "\"\(text)\" is no size that can be used; 64MiB and 1GiB are examples")
            return nil
        }
        return bytes
    }

    /// "12.50", more than nothing and at most the largest limit of an account.
    mutating func money(_ name: String) -> NanoUSD? {
        guard let text = text(name) else { return nil }
        guard let amount = NanoUSD(usd: text), amount > .zero, amount <= .limitMax else {
            report(name, "\"\(text)\" is no amount in USD that can be used")
            return nil
        }
        return amount
    }

    mutating func oneOf(_ name: String, _ choices: [String]) -> String? {
        guard let text = text(name) else { return nil }
        guard choices.contains(text) else {
            report(name, "\"\(text)\" is none of \(choices.joined(separator: ", "))")
            return nil
        }
        return text
    }

    /// Where to listen, or where others connect to.
    mutating func address(_ name: String, required: Bool = false) -> SocketAddress? {
        guard let text = text(name, required: required) else { return nil }
        if let address = SocketAddress(text) { return address }
        if let address = resolved(text) { return address }
        report(name, "\"\(text)\" is no address; 127.0.0.1:8000 and unix:/path are examples")
        return nil
    }

    private func resolved(_ text: some StringProtocol) -> SocketAddress? {
        HostPort(text)?.addresses(resolve).first
    }

    /// "http://host:port", "https://host/path" where TLS is spoken, or "unix:/path".
    mutating func url(_ name: String, required: Bool = false) -> HTTPOrigin? {
        guard let text = text(name, required: required) else { return nil }
        return origin(name, text, isUpstream: false)
    }

    /// `isUpstream`: there may be TLS, a path before every request's own, and "h2c://host:port" for
    /// HTTP/2 with prior knowledge.
    mutating func urls(
        _ name: String, required: Bool = false, isUpstream: Bool = false
    ) -> [HTTPOrigin] {
        guard let text = text(name, required: required) else { return [] }
        return text.split(separator: ",").compactMap { part in
            guard isUpstream, part.hasPrefix("h2c://") else {
                return origin(name, String(part), isUpstream: isUpstream)
            }
            var origin = origin(name, "http://" + part.dropFirst(6), isUpstream: true)
            origin?.wire = .http2
            return origin
        }
    }

    private mutating func origin(
        _ option: String, _ text: String, isUpstream: Bool
    ) -> HTTPOrigin? {
        if text.hasPrefix("unix:") {
            if let address = SocketAddress(text) {
                return HTTPOrigin(authority: "localhost", addresses: [address])
            }
            report(option, "\"\(text)\" is no path of a socket")
            return nil
        }
        let isSecure = text.hasPrefix("https://")
        guard isSecure && isUpstream || text.hasPrefix("http://"),
            let colons = text.firstRange(of: "://")
        else {
            report(
                option,
                isSecure
                    ? "https is not spoken here yet; use http or unix:/path"
                    : "\"\(text)\" is no URL; http://127.0.0.1:8080 is an example")
            return nil
        }
        var authority = text[colons.upperBound...]
        while authority.hasSuffix("/") { authority = authority.dropLast() }
        var path = Substring()
        if isUpstream, let slash = authority.firstIndex(of: "/") {
            (authority, path) = (authority[..<slash], authority[slash...])
        }
        let hasPort =
            authority.last != "]"
            && authority.split(separator: "]").last?.contains(":") == true
        let full = hasPort ? String(authority) : authority + (isSecure ? ":443" : ":80")
        let literal = SocketAddress(full)
        let name = literal == nil ? HostPort(full) : nil
        let addresses = literal.map { [$0] } ?? name?.addresses(resolve) ?? []
        let isPath = path.utf8.allSatisfy {
            (0x21...0x7E).contains($0) && $0 != UInt8(ascii: "?") && $0 != UInt8(ascii: "#")
        }
        guard !authority.contains("/"), !authority.contains("@"), !authority.isEmpty, isPath,
            !addresses.isEmpty
        else {
            report(
                option,
                "\"\(text)\" names no address"
                    + (isUpstream ? "" : "; a path in it cannot be used"))
            return nil
        }
        return HTTPOrigin(
            authority: String(authority), addresses: addresses, name: name, isSecure: isSecure,
            path: String(path))
    }
}

/// Where an upstream or a control plane is.
struct HTTPOrigin: Hashable, Sendable {
    /// "host:port" as the user wrote it.
    var authority: String
    /// All that the name stood for at the start; never empty.
    var addresses: [SocketAddress]
    /// `nil` for an address, which means the same for ever.
    var name: HostPort?
    /// Without TLS, whose handshake settles it.
    var wire = UpstreamProtocol.http1
    var isSecure = false
    /// What stands before the path of every request: "" or "/models/finbert".
    var path = ""

    var address: SocketAddress { addresses[0] }
}

/// A name that has to be resolved.
struct HostPort: Hashable, Sendable {
    let host: String
    let port: UInt16

    init?(_ text: some StringProtocol) {
        guard let colon = text.lastIndex(of: ":"),
            let port = UInt16(text[text.index(after: colon)...]), colon != text.startIndex
        else { return nil }
        host = String(text[..<colon])
        self.port = port
    }

    /// Of one family: a host that has both kinds has the same services at both.
    func addresses(_ resolve: (String) -> [SocketAddress]) -> [SocketAddress] {
        let found = resolve(host)
        var addresses: [SocketAddress] = []
        for address in found where address.family == found.first?.family {
            let whole = address.with(port: port)
            if !addresses.contains(whole) { addresses.append(whole) }
        }
        return addresses
    }
}

extension SocketAddress {
    func with(port new: UInt16) -> SocketAddress {
        switch self {
        case .ipv4(let address, _): .ipv4(address, port: new)
        case .ipv6(let high, let low, let scope, _): .ipv6(high, low, scope: scope, port: new)
        case .unix: self
        }
    }
}
