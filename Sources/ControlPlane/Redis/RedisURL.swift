import WeirCore

/// Where Redis is and how to get in:
///
///     redis://[user:password@]host[:port][/database]      one server
///     unix://[user:password@]/path[?db=N]                 one server on this machine
///     redis+sentinel://[user:password@]host[:port],…/name[/database]
///     redis+cluster://[user:password@]host[:port],…
///
/// `rediss` in place of `redis` is TLS, to Sentinels and nodes alike. Without a user,
/// `:password@` is the default user's. What Sentinels themselves want to hear is
/// `?sentinel_user=…&sentinel_password=…`. Names, passwords and values are percent-decoded, and
/// an "@" behind the last host has to be written %40.
package struct RedisURL: Hashable, Sendable {
    package enum Address: Hashable, Sendable {
        case tcp(host: String, port: UInt16)
        case unix(path: String)
    }

    package struct Login: Hashable, Sendable {
        package var user: String?
        package var password: String?
    }

    package enum Topology: Hashable, Sendable {
        case single(Address)
        /// Sentinels, and the name under which they watch the primary.
        case sentinel([Address], name: String, login: Login)
        /// Nodes to ask for the others.
        case cluster([Address])
    }

    package private(set) var topology: Topology
    package private(set) var login = Login()
    package private(set) var database = 0
    package private(set) var isEncrypted = false

    /// Problems name parts of the URL and never repeat them: it may hold a password.
    package init(parsing text: String) throws(RedisError) {
        do {
            self = try RedisURLParser.parse(text)
        } catch {
            throw .invalidURL(error.list.map(\.message).joined(separator: "; "))
        }
    }

    fileprivate init(topology: Topology, login: Login, database: Int, isEncrypted: Bool) {
        self.topology = topology
        self.login = login
        self.database = database
        self.isEncrypted = isEncrypted
    }
}

/// Reads a URL to its end, and says everything that is wrong with it.
package struct RedisURLParser {
    private enum Form: String, CaseIterable {
        case redis, rediss, unix
        case sentinel = "redis+sentinel"
        case encryptedSentinel = "rediss+sentinel"
        case cluster = "redis+cluster"
        case encryptedCluster = "rediss+cluster"
    }

    private var problems: [Problem] = []

    package static func parse(_ text: String) throws(Problems) -> RedisURL {
        var parser = RedisURLParser()
        let url = parser.read(text)
        guard let url, parser.problems.isEmpty else { throw Problems(parser.problems) }
        return url
    }

    private mutating func note(_ message: String) {
        problems.append(Problem(path: "", message: message))
    }

    private mutating func read(_ text: String) -> RedisURL? {
        let parts = text.split(separator: "://", maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.count == 2, let form = Form(rawValue: String(parts[0])) else {
            let known = Form.allCases.map { $0.rawValue + "://" }.joined(separator: ", ")
            note("one of \(known) is needed")
            return nil
        }
        var rest = parts[1]
        let login = takeLogin(&rest)
        let query = takeQuery(&rest)
        switch form {
        case .unix: return unix(rest, login, query)
        case .redis, .rediss: return single(rest, login, query, form == .rediss)
        case .sentinel, .encryptedSentinel:
            return sentinel(rest, login, query, form == .encryptedSentinel)
        case .cluster, .encryptedCluster:
            return cluster(rest, login, query, form == .encryptedCluster)
        }
    }

    // MARK: The forms

    private mutating func unix(
        _ rest: Substring, _ login: RedisURL.Login, _ query: [String: String]
    ) -> RedisURL {
        let path = String(rest)
        // sun_path holds 108 bytes, the final zero among them.
        if !path.hasPrefix("/") || path.utf8.count >= 108 {
            note("unix:// needs an absolute path of at most 107 bytes")
        }
        refuseUnknown(query, known: ["db"])
        return RedisURL(
            topology: .single(.unix(path: path)), login: login,
            database: database(query["db"].map { Substring($0) }), isEncrypted: false)
    }

    private mutating func single(
        _ rest: Substring, _ login: RedisURL.Login, _ query: [String: String], _ encrypted: Bool
    ) -> RedisURL? {
        refuseUnknown(query, known: [])
        let (hosts, path) = cut(rest)
        let addresses = addresses(hosts, defaultPort: 6379)
        if addresses.count > 1 {
            note("several hosts need redis+sentinel:// or redis+cluster://")
        }
        let number = database(path)
        return addresses.first.map {
            RedisURL(
                topology: .single($0), login: login, database: number, isEncrypted: encrypted)
        }
    }

    private mutating func sentinel(
        _ rest: Substring, _ login: RedisURL.Login, _ query: [String: String], _ encrypted: Bool
    ) -> RedisURL {
        refuseUnknown(query, known: ["sentinel_user", "sentinel_password"])
        let (hosts, path) = cut(rest)
        let (name, number) = cut(path ?? "")
        if name.isEmpty { note("the name that Sentinels give the primary is missing: …/name") }
        if query["sentinel_user"] != nil, query["sentinel_password"] == nil {
            note("sentinel_user needs sentinel_password")
        }
        let own = RedisURL.Login(
            user: query["sentinel_user"], password: query["sentinel_password"])
        return RedisURL(
            topology: .sentinel(
                addresses(hosts, defaultPort: 26379), name: unescape(name, "the primary's name"),
                login: own),
            login: login, database: database(number), isEncrypted: encrypted)
    }

    private mutating func cluster(
        _ rest: Substring, _ login: RedisURL.Login, _ query: [String: String], _ encrypted: Bool
    ) -> RedisURL {
        refuseUnknown(query, known: [])
        let (hosts, path) = cut(rest)
        if database(path) != 0 { note("a cluster has database 0 only") }
        return RedisURL(
            topology: .cluster(addresses(hosts, defaultPort: 6379)), login: login, database: 0,
            isEncrypted: encrypted)
    }

    // MARK: The parts

    private func cut(_ text: Substring) -> (Substring, Substring?) {
        guard let slash = text.firstIndex(of: "/") else { return (text, nil) }
        return (text[..<slash], text[text.index(after: slash)...])
    }

    /// Takes "?name=value&…" from the end.
    private mutating func takeQuery(_ rest: inout Substring) -> [String: String] {
        guard let mark = rest.firstIndex(of: "?") else { return [:] }
        var values: [String: String] = [:]
        for pair in rest[rest.index(after: mark)...].split(separator: "&") {
            let parts = pair.split(
                separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            let name = String(parts[0])
            if parts.count < 2 || values[name] != nil {
                note("what follows the ? is name=value&name=value, each name once")
            } else {
                values[name] = unescape(parts[1], "a value behind the ?")
            }
        }
        rest = rest[..<mark]
        return values
    }

    private mutating func refuseUnknown(_ query: [String: String], known: Set<String>) {
        if !known.isSuperset(of: query.keys) {
            note(
                known.isEmpty
                    ? "nothing may follow a ? here"
                    : "only \(known.sorted().joined(separator: ", ")) may follow the ?")
        }
    }

    /// Takes "user:password@" from the front.
    private mutating func takeLogin(_ rest: inout Substring) -> RedisURL.Login {
        guard let at = rest.lastIndex(of: "@") else { return RedisURL.Login() }
        let parts = rest[..<at].split(
            separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
        rest = rest[rest.index(after: at)...]
        guard parts.count == 2 else {
            note("before the @, user:password or :password is needed")
            return RedisURL.Login()
        }
        return RedisURL.Login(
            user: parts[0].isEmpty ? nil : unescape(parts[0], "the user"),
            password: unescape(parts[1], "the password"))
    }

    private mutating func addresses(
        _ text: Substring, defaultPort: UInt16
    ) -> [RedisURL.Address] {
        let hosts = text.split(separator: ",", omittingEmptySubsequences: false)
        if hosts.count > StoreLimits.redisSeedsMax {
            note("at most \(StoreLimits.redisSeedsMax) hosts may be named")
        }
        return hosts.compactMap { RedisURL.Address(hostAndPort: $0, defaultPort, &problems) }
    }

    private mutating func database(_ text: Substring?) -> Int {
        guard let text, !text.isEmpty else { return 0 }
        guard let number = Int(text), (0...Int(Int32.max)).contains(number) else {
            note("the database is no number")
            return 0
        }
        return number
    }

    /// Percent-decoding, because a password may hold "@" or "/".
    private mutating func unescape(_ text: Substring, _ what: String) -> String {
        var bytes: [UInt8] = []
        var rest = text.utf8[...]
        while let byte = rest.popFirst() {
            guard byte == UInt8(ascii: "%") else {
                bytes.append(byte)
                continue
            }
            let digits = Substring(rest.prefix(2))
            guard digits.utf8.count == 2, digits.allSatisfy(\.isHexDigit),
                let value = UInt8(digits, radix: 16)
            else {
                note("\(what) has a % that no two hexadecimal digits follow")
                return ""
            }
            bytes.append(value)
            rest = rest.dropFirst(2)
        }
        guard let decoded = String(validating: bytes, as: UTF8.self) else {
            note("\(what) is not UTF-8")
            return ""
        }
        return decoded
    }
}

extension RedisURL.Address {
    /// "host", "host:port", "[::1]:port".
    fileprivate init?(
        hostAndPort text: Substring, _ defaultPort: UInt16, _ problems: inout [Problem]
    ) {
        var host = text
        var port = defaultPort
        let colon = text.lastIndex(of: ":")
        if let colon, !text.hasSuffix("]") {
            let number = UInt16(text[text.index(after: colon)...])
            if let number, number > 0 {
                port = number
            } else {
                problems.append(
                    Problem(path: "", message: "a port is no number from 1 to 65535"))
            }
            host = text[..<colon]
        }
        if host.hasPrefix("["), host.hasSuffix("]") { host = host.dropFirst().dropLast() }
        guard !host.isEmpty else {
            problems.append(Problem(path: "", message: "a host is missing"))
            return nil
        }
        self = .tcp(host: String(host), port: port)
    }
}

extension RedisURL.Address: CustomStringConvertible {
    package var description: String {
        switch self {
        case .tcp(let host, let port): "\(host):\(port)"
        case .unix(let path): path
        }
    }

    /// The name that a certificate has to hold.
    var host: String? { if case .tcp(let host, _) = self { host } else { nil } }
}
