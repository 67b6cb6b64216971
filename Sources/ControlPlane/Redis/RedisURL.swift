/// Where Redis is: `redis://[user:password@]host[:port][/database]` or
/// `unix://[user:password@]/path[?db=N]`; without a user, `:password@` is the default user's.
package struct RedisURL: Hashable, Sendable {
    package enum Address: Hashable, Sendable {
        case tcp(host: String, port: UInt16)
        case unix(path: String)
    }

    package var address = Address.tcp(host: "localhost", port: 6379)
    package var user: String?
    package var password: String?
    package var database = 0

    package init(parsing text: String) throws(RedisError) {
        if text.hasPrefix("unix://") {
            try self.init(unix: text.dropFirst(7))
        } else if text.hasPrefix("redis://") {
            try self.init(tcp: text.dropFirst(8))
        } else {
            throw .invalidURL("redis://host:port or unix:///path is needed")
        }
    }

    private init(unix text: Substring) throws(RedisError) {
        let parts = try Self.login(text, &user, &password)
            .split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
        let path = String(parts[0])
        // sun_path holds 108 bytes, the final zero among them.
        guard path.hasPrefix("/"), path.utf8.count < 108 else {
            throw .invalidURL("unix:// needs an absolute path of at most 107 bytes")
        }
        address = .unix(path: path)
        guard parts.count == 2 else { return }
        guard parts[1].hasPrefix("db=") else { throw .invalidURL("only ?db=N is known") }
        database = try Self.database(parts[1].dropFirst(3))
    }

    private init(tcp text: Substring) throws(RedisError) {
        var rest = try Self.login(text, &user, &password)
        if let slash = rest.firstIndex(of: "/") {
            let name = rest[rest.index(after: slash)...]
            if !name.isEmpty { database = try Self.database(name) }
            rest = rest[..<slash]
        }
        address = try Self.hostAndPort(rest)
    }

    /// Takes "user:password@" from the front.
    private static func login(
        _ text: Substring, _ user: inout String?, _ password: inout String?
    ) throws(RedisError) -> Substring {
        guard let at = text.lastIndex(of: "@") else { return text }
        let parts = text[..<at].split(
            separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.count == 2 else { throw .invalidURL("user:password@ is needed") }
        user = parts[0].isEmpty ? nil : try unescape(parts[0])
        password = try unescape(parts[1])
        return text[text.index(after: at)...]
    }

    private static func hostAndPort(_ text: Substring) throws(RedisError) -> Address {
        var host = text
        var port: UInt16 = 6379
        let colon = text.lastIndex(of: ":")
        if let colon, !text.hasSuffix("]") {
            guard let number = UInt16(text[text.index(after: colon)...]), number > 0 else {
                throw .invalidURL("the port is no number from 1 to 65535")
            }
            port = number
            host = text[..<colon]
        }
        if host.hasPrefix("["), host.hasSuffix("]") { host = host.dropFirst().dropLast() }
        guard !host.isEmpty else { throw .invalidURL("the host is missing") }
        return .tcp(host: String(host), port: port)
    }

    private static func database(_ text: Substring) throws(RedisError) -> Int {
        guard let number = Int(text), number >= 0 else {
            throw .invalidURL("the database is no number")
        }
        return number
    }

    /// Percent-decoding, because a password may hold "@" or "/".
    private static func unescape(_ text: Substring) throws(RedisError) -> String {
        var bytes: [UInt8] = []
        var rest = text.utf8[...]
        while let byte = rest.popFirst() {
            guard byte == UInt8(ascii: "%") else {
                bytes.append(byte)
                continue
            }
            let digits = rest.prefix(2)
            guard digits.count == 2, let value = UInt8(Substring(digits), radix: 16) else {
                throw .invalidURL("bad percent-encoding in the password")
            }
            bytes.append(value)
            rest = rest.dropFirst(2)
        }
        guard let decoded = String(validating: bytes, as: UTF8.self) else {
            throw .invalidURL("the password is not UTF-8")
        }
        return decoded
    }
}

extension RedisURL.Address: CustomStringConvertible {
    package var description: String {
        switch self {
        case .tcp(let host, let port): "\(host):\(port)"
        case .unix(let path): path
        }
    }
}
