import SidecarCore
import Testing

@testable import SidecarWiring

/// Settings of TLS: what is understood, and what is told where it cannot be.
@Suite struct TLSOptionTests {
    private func options(_ line: String) throws(OptionProblems) -> SidecarOptions {
        let values = try OptionValues(
            table: SidecarOptionTable.all, arguments: line.split(separator: " ").map(String.init),
            environment: ["WEIR_JOIN_TOKEN": "token"]
        ) { (path) throws(OptionProblem) in
            throw OptionProblem(option: path, message: "is not there")
        }
        return try SidecarOptions(
            values, hostName: "host",
            readFile: { (path) throws(OptionProblem) in
                guard let name = path.split(separator: "/").last, path.hasPrefix("/pem/") else {
                    throw OptionProblem(option: path, message: "is not there")
                }
                return TestCertificates.pem(String(name))
            }
        ) { name in name.hasSuffix(".local") ? [.loopback(port: 0)] : [] }
    }

    private func problems(_ line: String) -> [String] {
        do {
            _ = try options(line)
            return []
        } catch {
            return error.list.map(\.description)
        }
    }

    private func alone(_ upstream: String) -> String {
        "--standalone --policy p --agent a --listen 127.0.0.1:1 --upstream \(upstream)"
    }

    @Test func `an https upstream has a name, a port and a path`() throws {
        let found = try options(alone("https://api.local/models/one/"))
        let origin = try #require(found.mode.upstreams.first)
        #expect(origin.isSecure)
        #expect(origin.name?.host == "api.local")
        #expect(origin.authority == "api.local")
        #expect(origin.addresses == [.loopback(port: 443)])
        #expect(origin.path == "/models/one")
        #expect(found.upstreamTLS != nil)
        #expect(found.listenerTLS == nil)
        #expect(try options(alone("http://api.local:81/x")).mode.upstreams.first?.path == "/x")
        #expect(try options(alone("http://api.local")).upstreamTLS == nil)
        let literal = try options(alone("https://127.0.0.1:8443,https://127.0.0.2:8443"))
        #expect(literal.mode.upstreams.map(\.name) == [nil, nil])
    }

    @Test(arguments: [
        ("https://one.local:1,https://two.local:2", "all instances need one scheme"),
        ("https://one.local:1,http://one.local:2", "all instances need one scheme"),
        ("https://one.local:1/a,https://one.local:2/b", "all instances need one scheme"),
        ("https://one.local/?q", "names no address"), ("https://me@one.local", "names no address"),
        ("ftp://one.local", "is no URL"),
    ])
    func `upstreams that cannot be one agent`(_ upstream: String, _ problem: String) {
        let found = problems(alone(upstream))
        #expect(found.contains { $0.hasPrefix("--upstream: ") && $0.contains(problem) }, "\(found)")
    }

    @Test func `a listener has a pair, and may ask clients`() throws {
        let found = try options(
            alone("http://127.0.0.1:2") + " --tls-certificate /pem/server --tls-key "
                + "/pem/server-key --tls-client-ca /pem/ca --tls-client-identities "
                + "spiffe://mesh.test/one,spiffe://mesh.test/agent/* --tls-minimum 1.3")
        let listener = try #require(found.listenerTLS)
        #expect(listener.files == ["/pem/server", "/pem/server-key", "/pem/ca"])
        #expect(listener.clientIdentities.count == 2)
        #expect(listener.minimum == .v1_3)
    }

    @Test func `halves and strangers are told with the file's name`() {
        #expect(
            problems(alone("http://127.0.0.1:2") + " --tls-key /pem/server-key")
                == ["--tls-certificate: is needed with the other settings of the listener's TLS"])
        #expect(
            problems(
                alone("https://one.local") + " --tls-certificate /gone --tls-key /pem/ca "
                    + "--upstream-ca /pem/ca-key")
                == [
                    "--tls-certificate: /gone: is not there",
                    "--upstream-ca: /pem/ca-key holds no certificate in PEM",
                ])
        #expect(
            problems(
                alone("http://127.0.0.1:2")
                    + " --tls-certificate /pem/server --tls-key /pem/client-key")
                == ["--tls-key: /pem/client-key does not belong to the certificate"])
    }

    @Test func `a mesh is spoken to in plaintext, and so are its sidecars`() {
        let mesh = "--agent a --listen 127.0.0.1:1 --data /tmp/d --upstream http://127.0.0.1:2 "
        #expect(
            problems(mesh + "--control-plane https://api.local").contains {
                $0.contains("https is not spoken here yet")
            })
        #expect(
            problems(
                mesh + "--control-plane http://127.0.0.1:3 --tls-certificate /pem/server "
                    + "--tls-key /pem/server-key"
            ).contains { $0.hasPrefix("--tls-certificate: gateways call sidecars in plaintext") })
    }
}
