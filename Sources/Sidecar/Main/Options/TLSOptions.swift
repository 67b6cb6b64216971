import SidecarCore

/// The files and rules of the listener's TLS, as settings name them.
struct ListenerTLS: Sendable {
    var certificate: String
    var key: String
    var clientAuthorities: String?
    var clientIdentities: [IdentityPattern]
    var minimum: TLSVersion

    var files: [String] { [certificate, key] + [clientAuthorities].compactMap { $0 } }

    /// - Throws: every problem, under the name of its setting.
    func context(_ files: @escaping TLSFileReader) throws(OptionProblems) -> TLSServerContext {
        var reading = TLSReading(files)
        let pair = reading.pair((certificate, "tls-certificate"), (key, "tls-key"))
        let authorities = clientAuthorities.map { reading.bytes($0, "tls-client-ca") }
        guard let pair, reading.problems.isEmpty else { throw reading.result }
        let settings = TLSServerSettings(
            pair, clientAuthorities: authorities, clientIdentities: clientIdentities,
            minimum: minimum)
        do throws(TLSProblems) {
            return try TLSServerContext(settings)
        } catch {
            throw reading.told(error)
        }
    }
}

/// Those of the upstreams' TLS.
struct UpstreamTLS: Sendable {
    /// `nil`: the system's store.
    var authorities: String?
    var certificate: String?
    var key: String?
    var minimum: TLSVersion

    var files: [String] { [authorities, certificate, key].compactMap { $0 } }

    /// - Throws: every problem, under the name of its setting.
    func context(_ files: @escaping TLSFileReader) throws(OptionProblems) -> TLSClientContext {
        var reading = TLSReading(files)
        let authorities = authorities.map { reading.bytes($0, "upstream-ca") }
        var pair: TLSKeyPair?
        if let certificate, let key {
            pair = reading.pair((certificate, "upstream-certificate"), (key, "upstream-key"))
        }
        guard reading.problems.isEmpty else { throw reading.result }
        let settings = TLSClientSettings(authorities: authorities, pair: pair, minimum: minimum)
        do throws(TLSProblems) {
            return try TLSClientContext(settings)
        } catch {
            throw reading.told(error)
        }
    }
}

typealias TLSFileReader = (String) throws(OptionProblem) -> [UInt8]

/// Reads files and remembers which part of a context each of them is.
private struct TLSReading {
    private let read: TLSFileReader
    private var sources: [TLSProblem.Part: (path: String, setting: String)] = [:]
    private(set) var problems: [OptionProblem] = []

    init(_ read: @escaping TLSFileReader) { self.read = read }

    var result: OptionProblems { OptionProblems(list: problems) }

    mutating func pair(
        _ certificate: (path: String, setting: String), _ key: (path: String, setting: String)
    ) -> TLSKeyPair? {
        let chain = bytes(certificate.path, certificate.setting, .certificate)
        let key = bytes(key.path, key.setting, .key)
        return problems.isEmpty ? TLSKeyPair(certificate: chain, key: key) : nil
    }

    mutating func bytes(
        _ path: String, _ setting: String, _ part: TLSProblem.Part = .authorities
    ) -> [UInt8] {
        sources[part] = (path, setting)
        do throws(OptionProblem) {
            let bytes = try read(path)
            if bytes.count <= TLSLimits.fileBytesMax { return bytes }
            problems.append(
                OptionProblem(
                    option: setting,
                    message: "\(path) is larger than \(TLSLimits.fileBytesMax) bytes"))
        } catch {
            problems.append(OptionProblem(option: setting, message: "\(path): \(error.message)"))
        }
        return []
    }

    func told(_ error: TLSProblems) -> OptionProblems {
        OptionProblems(
            list: error.list.map { problem in
                let source = sources[problem.part]
                return OptionProblem(
                    option: source?.setting ?? "",
                    message: "\(source?.path ?? "") \(problem.message)"
                )
            })
    }
}

extension OptionReader {
    /// What the listener's settings say, where they are there and can be used.
    mutating func listenerTLS(_ readFile: @escaping TLSFileReader) -> ListenerTLS? {
        let certificate = text("tls-certificate")
        let key = text("tls-key")
        let authorities = text("tls-client-ca")
        let identities = identityPatterns()
        let minimum = minimumVersion()
        for (name, needed) in [
            ("tls-certificate", isSet("tls-key")), ("tls-key", isSet("tls-certificate")),
            ("tls-certificate", isSet("tls-client-ca")),
            ("tls-client-ca", isSet("tls-client-identities")),
        ] where needed && !isSet(name) {
            report(name, "is needed with the other settings of the listener's TLS")
        }
        guard let certificate, let key else { return nil }
        let listener = ListenerTLS(
            certificate: certificate, key: key, clientAuthorities: authorities,
            clientIdentities: identities, minimum: minimum)
        // Looked at here so that a user hears of everything that is wrong at once.
        do throws(OptionProblems) {
            _ = try listener.context(readFile)
        } catch {
            for problem in error.list { report(problem.option, problem.message) }
        }
        return listener
    }

    mutating func upstreamTLS(_ readFile: @escaping TLSFileReader) -> UpstreamTLS {
        let upstream = UpstreamTLS(
            authorities: text("upstream-ca"), certificate: text("upstream-certificate"),
            key: text("upstream-key"), minimum: minimumVersion())
        for (name, other) in [
            ("upstream-certificate", "upstream-key"), ("upstream-key", "upstream-certificate"),
        ] where isSet(other) && !isSet(name) {
            report(name, "is needed where --\(other) is")
        }
        guard !upstream.files.isEmpty else { return upstream }
        do throws(OptionProblems) {
            _ = try upstream.context(readFile)
        } catch {
            for problem in error.list { report(problem.option, problem.message) }
        }
        return upstream
    }

    private mutating func minimumVersion() -> TLSVersion {
        let text = values["tls-minimum"]?.text ?? TLSVersion.v1_2.rawValue
        return TLSVersion(rawValue: text) ?? .v1_2
    }

    private mutating func identityPatterns() -> [IdentityPattern] {
        guard let text = text("tls-client-identities") else { return [] }
        return text.split(separator: ",").compactMap { part in
            let part = String(part.drop { $0 == " " })
            if let pattern = IdentityPattern(part) { return pattern }
            report(
                "tls-client-identities",
                "\"\(part)\" is no identity; spiffe://mesh.example/agent/finbert and "
                    + "spiffe://mesh.example/* are examples")
            return nil
        }
    }
}
