import ControlPlaneStore
import Foundation
import Logging
import WeirCore
import WeirMeshProtocol

/// What a control plane needs to know to run. Flags go before the environment, that before the file
/// that `--config` names; every problem is reported, not the first one.
package struct ControlPlaneConfiguration: Sendable {
    /// What the command line says.
    package struct Flags: Sendable {
        package var config: String?
        package var api: String?
        package var mesh: String?
        package var meshPlaintext: String?
        package var redis: String?
        package var redisTLS = RedisTLSFiles()
        package var data: String?
        package var isTrial = false
        package init() {}
    }

    package static let defaultAPI = "127.0.0.1:8400"
    package static let defaultMesh = "127.0.0.1:8401"

    package var api: ListenAddress
    package var mesh: ListenAddress
    /// Whether the mesh listener, which has no TLS yet, may leave the loopback.
    package var meshPlaintext: MeshPlaintext
    package var redisURL: String
    /// For a URL that begins with `rediss`.
    package var redisTLS: RedisTLSFiles
    /// Where records are kept: a file in the data folder, or PostgreSQL.
    package var archive: ArchiveLocation
    /// Grant money also where Redis may lose it.
    package var isTrial: Bool
    package var administratorToken: AccessToken
    package var joinToken: String
    package var logLevel: Logger.Level

    package init(
        api: ListenAddress, mesh: ListenAddress, meshPlaintext: MeshPlaintext = .loopback,
        redisURL: String, redisTLS: RedisTLSFiles = RedisTLSFiles(),
        archive: ArchiveLocation, isTrial: Bool,
        administratorToken: AccessToken, joinToken: String,
        logLevel: Logger.Level
    ) {
        self.api = api
        self.mesh = mesh
        self.meshPlaintext = meshPlaintext
        self.redisURL = redisURL
        self.redisTLS = redisTLS
        self.archive = archive
        self.isTrial = isTrial
        self.administratorToken = administratorToken
        self.joinToken = joinToken
        self.logLevel = logLevel
    }

    /// Problems carry the flag's or variable's name as their path.
    package init(
        flags: Flags, environment variables: [String: String],
        readFile: @escaping (String) -> String? = Self.readFile
    ) throws(Problems) {
        var environment = variables
        var problems: [Problem] = []
        if let path = flags.config ?? variables["WEIR_CONFIG"], !path.isEmpty {
            (environment, problems) = ConfigurationFile.add(
                path, to: variables, readFile: readFile)
        }
        var reader = Reader(environment: environment, readFile: readFile, problems: problems)
        let api = reader.address("--api", flags.api ?? environment["WEIR_API"], Self.defaultAPI)
        let mesh = reader.address(
            "--mesh", flags.mesh ?? environment["WEIR_MESH"], Self.defaultMesh)
        let plaintext = reader.meshPlaintext(flags.meshPlaintext)
        if let mesh, !plaintext.allows(isLoopback: mesh.isLoopback) {
            reader.note("--mesh", Self.plaintextProblem)
        }
        let redisTLS = reader.redisTLS(flags.redisTLS)
        let redisURL = reader.redisURL(flags.redis, redisTLS)
        let archive = reader.archive(flags.data)
        let administrator = reader.secret("WEIR_ADMIN_TOKEN")
        let join = reader.secret("WEIR_JOIN_TOKEN")
        let level = reader.logLevel()
        guard let api, let mesh, let redisURL, let archive, let administrator, let join,
            reader.problems.isEmpty
        else { throw Problems(reader.problems) }
        self.init(
            api: api, mesh: mesh, meshPlaintext: plaintext, redisURL: redisURL, redisTLS: redisTLS,
            archive: archive,
            isTrial: flags.isTrial || reader.isSet("WEIR_TRIAL"),
            administratorToken: AccessToken(administrator), joinToken: join, logLevel: level)
    }

    static let plaintextProblem =
        "the mesh listener is plaintext and serves loopback only, unless --mesh-plaintext network "
        + "says that something else guards the network"

    package static func readFile(_ path: String) -> String? {
        guard let data = FileManager.default.contents(atPath: path),
            data.count <= ServerLimits.tokenBytesMax
        else { return nil }
        return String(data: data, encoding: .utf8)
    }
}

private struct Reader {
    let environment: [String: String]
    let readFile: (String) -> String?
    var problems: [Problem]

    mutating func note(_ path: String, _ message: String) {
        problems.append(Problem(path: path, message: message))
    }

    mutating func address(_ flag: String, _ text: String?, _ fallback: String) -> ListenAddress? {
        let address = ListenAddress(text ?? fallback)
        if address == nil { note(flag, "host:port is needed, not \(text ?? fallback)") }
        return address
    }

    mutating func meshPlaintext(_ flag: String?) -> MeshPlaintext {
        guard let text = flag ?? environment[MeshPlaintext.environment], !text.isEmpty else {
            return .loopback
        }
        guard let plaintext = MeshPlaintext(rawValue: text) else {
            note("--mesh-plaintext", "one of \(MeshPlaintext.choices) is needed, not \(text)")
            return .loopback
        }
        return plaintext
    }

    func redisTLS(_ flags: RedisTLSFiles) -> RedisTLSFiles {
        func path(_ flag: String?, _ name: String) -> String? {
            let text = flag ?? environment[name]
            return text?.isEmpty ?? true ? nil : text
        }
        return RedisTLSFiles(
            authorities: path(flags.authorities, "REDIS_CA_FILE"),
            certificate: path(flags.certificate, "REDIS_CERT_FILE"),
            key: path(flags.key, "REDIS_KEY_FILE"))
    }

    /// The URL may hold a password, so it is not repeated in what is wrong with it.
    mutating func redisURL(_ flag: String?, _ files: RedisTLSFiles) -> String? {
        var text = flag
        if text == nil, environment["REDIS_URL_FILE"] != nil { text = oneLine("REDIS_URL") }
        let url = text ?? environment["REDIS_URL"] ?? "redis://127.0.0.1:6379"
        do {
            let parsed = try RedisURLParser.parse(url)
            if parsed.isEncrypted {
                _ = try RedisTLS(files)
            } else if files != RedisTLSFiles() {
                note("REDIS_URL", "has no TLS (rediss://), though files for TLS are set")
            }
            return url
        } catch {
            for problem in error.list {
                note(problem.path.isEmpty ? "REDIS_URL" : problem.path, problem.message)
            }
            return nil
        }
    }

    /// PostgreSQL where DATABASE_URL names it, a file in the data folder without it.
    mutating func archive(_ flag: String?) -> ArchiveLocation? {
        guard environment["DATABASE_URL"] != nil || environment["DATABASE_URL_FILE"] != nil else {
            guard let folder = flag ?? environment["WEIR_DATA"], !folder.isEmpty else {
                note("--data", "a folder for the archive is needed, or DATABASE_URL")
                return nil
            }
            return .sqlite(path: folder + "/archive.sqlite3")
        }
        let connections = connections()
        guard let url = oneLine("DATABASE_URL"), let connections else { return nil }
        guard let settings = PostgreSQLSettings(url: url, connections: connections) else {
            // The URL may hold a password, so it is not repeated.
            note(
                "DATABASE_URL",
                "not a URL of PostgreSQL: postgresql://user:password@host:port/database is needed")
            return nil
        }
        return .postgreSQL(settings)
    }

    private mutating func connections() -> Int? {
        guard let text = environment["DATABASE_POOL_SIZE"] else {
            return PostgreSQLSettings.defaultConnections
        }
        let range = PostgreSQLSettings.connectionsRange
        guard let count = Int(text), range.contains(count) else {
            note(
                "DATABASE_POOL_SIZE",
                "a number from \(range.lowerBound) to \(range.upperBound) is needed, not \(text)")
            return nil
        }
        return count
    }

    /// The text of NAME or of the file that NAME_FILE names, without the line's end.
    private mutating func oneLine(_ name: String) -> String? {
        let file = environment[name + "_FILE"]
        guard let text = file.map(readFile) ?? environment[name] else {
            note(
                name,
                file == nil
                    ? "is not set, nor is \(name)_FILE" : "the file of \(name)_FILE cannot be read")
            return nil
        }
        return text.trimmingCharacters(in: .whitespacesAndNewlines)
    }

    /// A secret out of NAME or the file that NAME_FILE names.
    mutating func secret(_ name: String) -> String? {
        guard let token = oneLine(name) else { return nil }
        guard token.utf8.count >= ServerLimits.tokenBytesMin,
            token.utf8.count <= ServerLimits.tokenBytesMax,
            token.utf8.allSatisfy({ (0x21...0x7E).contains($0) })
        else {
            note(
                name,
                "needs at least \(ServerLimits.tokenBytesMin) printable characters without spaces")
            return nil
        }
        return token
    }

    func isSet(_ flag: String) -> Bool {
        ["1", "true", "yes", "on"].contains(environment[flag]?.lowercased() ?? "")
    }

    mutating func logLevel() -> Logger.Level {
        let isDebug = isSet("DEBUG")
        guard let name = environment["LOG_LEVEL"] else { return isDebug ? .debug : .info }
        let aliases = ["warn": "warning", "fatal": "critical"]
        let lowered = name.lowercased()
        guard let level = Logger.Level(rawValue: aliases[lowered] ?? lowered) else {
            let known = Logger.Level.allCases.map(\.rawValue).joined(separator: ", ")
            note("LOG_LEVEL", "one of \(known) is needed, not \(name)")
            return .info
        }
        return level
    }
}
