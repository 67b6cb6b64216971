import Foundation
import Testing
import WeirCore

/// TLS on both sides of a sidecar, spoken by others: curl, openssl s_client, Python's ssl.
@Suite(.timeLimit(.minutes(3)), .serialized)
struct TLSTests {
    // MARK: Clients

    @Test func `only clients with a certificate that holds and may connect are served`()
        async throws
    {
        try await TLSSidecar.run(asksClients: true) { sidecar in
            #expect(try await sidecar.curl(as: "client").output.contains(#""path": "/base/v1"#))
            #expect(try await sidecar.curl().status != 0)
            try await sidecar.logs("the client showed no certificate")
            #expect(try await sidecar.curl(as: "ci").status != 0)
            try await sidecar.logs("CN=ci runner may not connect")
            #expect(try await sidecar.curl(as: "stranger").status != 0)
            try await sidecar.logs("unable to get local issuer certificate")
            #expect(try await sidecar.curl(as: "two-ids").status != 0)
            #expect(try await sidecar.curl(as: "client").status == 0)
        }
    }

    @Test func `both versions resume their sessions, and ALPN names what is spoken`() async throws {
        try await TLSSidecar.run(asksClients: true) { sidecar in
            for version in ["-tls1_2", "-tls1_3"] {
                let file = sidecar.folder.path("session\(version)")
                let first = try await sidecar.handshake(
                    [version, "-alpn", "http/1.1", "-sess_out", file], as: "client")
                #expect(first.contains("New, TLSv1."))
                #expect(first.contains("ALPN protocol: http/1.1"))
                #expect(first.contains("lifetime hint: 7200"))
                let second = try await sidecar.handshake(
                    [version, "-sess_in", file], as: "client")
                #expect(second.contains("Reused, TLSv1."), "\(version): \(second)")
            }
            let strange = try await sidecar.handshake(["-alpn", "smtp"], as: "client")
            #expect(strange.contains("no application protocol"))
        }
    }

    @Test func `clients choose HTTP/2 by ALPN: curl, nghttp and h2load`() async throws {
        try await TLSSidecar.run { sidecar in
            for version in ["1.1", "2"] {
                let answer = try await sidecar.curl(["--http\(version)", "-w", " %{http_version}"])
                #expect(answer.output.hasSuffix(" \(version)"), "\(answer.output)")
                #expect(answer.output.contains(#""path": "/base/v1/chat/completions""#))
            }
            let body = try sidecar.folder.write("body.json", TLSSidecar.body)
            let url = "https://localhost:\(sidecar.port)/v1/chat/completions"
            let fields = ["-d", body, "-H", "content-type: application/json", url]
            let one = try await Tools.run(Tools.path("nghttp"), ["-v"] + fields)
            #expect(one.output.contains("The negotiated protocol: h2"), "\(one.output)")
            #expect(one.output.contains(":status: 200"))
            let many = try await Tools.run(
                Tools.path("h2load"), ["-n", "200", "-c", "2", "-m", "20"] + fields,
                within: .seconds(60))
            #expect(
                many.output.contains("200 succeeded, 0 failed, 0 errored, 0 timeout"),
                "\(many.output)")
            #expect(many.output.contains("Application protocol: h2"))
        }
    }

    @Test func `a minimum of 1.3 refuses 1.2`() async throws {
        try await TLSSidecar.run(arguments: ["--tls-minimum", "1.3"]) { sidecar in
            let old = try await sidecar.handshake(["-tls1_2"])
            #expect(old.contains("protocol version"), "\(old)")
            let new = try await sidecar.curl(["--tlsv1.3"])
            #expect(new.status == 0, "\(new.output)")
        }
    }

    @Test func `half-open handshakes and strange bytes leave room for others`() async throws {
        try await TLSSidecar.run { sidecar in
            #expect(try await sidecar.curl().status == 0)
            let before = sidecar.residentBytes
            var open: [RawConnection] = []
            for index in 0..<200 {
                let connection = try RawConnection(port: sidecar.port)
                // The beginning of a record that never ends; every other one says nothing.
                if index % 2 == 0 { try connection.send("\u{16}\u{3}\u{1}\u{2}") }
                open.append(connection)
            }
            let plain = try RawConnection(port: sidecar.port)
            try plain.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            try await sidecar.logs("http request")
            #expect(try await sidecar.curl().status == 0)
            #expect(sidecar.residentBytes - before < 200 * 64 * 1_024)
            #expect(sidecar.part.process.isRunning)
            withExtendedLifetime(open) {}
        }
    }

    // MARK: Upstreams

    @Test func `an https upstream is called by its name, with its key and our certificate`()
        async throws
    {
        try await TLSSidecar.run { sidecar in
            let seen = try JSON.parse(try await sidecar.curl().output)
            #expect(seen["path"]?.string == "/base/v1/chat/completions")
            #expect(seen["sni"]?.string == "localhost")
            #expect(seen["headers"]?["host"]?.string?.hasPrefix("localhost:") == true)
            #expect(seen["headers"]?["host"]?.string != "localhost:\(sidecar.port)")
            #expect(seen["headers"]?["x-forwarded-proto"]?.string == "https")
            #expect(seen["headers"]?["authorization"]?.string == "Bearer \(TLSSidecar.secret)")
            #expect(seen["peer"]?.string?.contains("client") == true)
            let shown = try await Endpoint(port: sidecar.adminPort).get("/config").text
            #expect(!shown.contains(TLSSidecar.secret))
            #expect(!sidecar.part.log.contains(TLSSidecar.secret))
        }
    }

    @Test(arguments: [
        ("other-name", "ca", "hostname mismatch"),
        ("server", "other-ca", "self-signed certificate in certificate chain"),
        ("server", nil, "self-signed certificate in certificate chain"),
        ("expired", "ca", "certificate has expired"),
    ])
    func `an upstream that is not who it should be is not called`(
        _ certificate: String, _ trusted: String?, _ reason: String
    ) async throws {
        try await TLSSidecar.run(upstream: certificate, trusted: trusted) { sidecar in
            let answer = try await sidecar.curl(["-w", " %{http_code}"])
            #expect(answer.output.contains("upstream_error"))
            #expect(answer.output.hasSuffix(" 502"))
            // The client is told less than the operator.
            #expect(!answer.output.contains(reason))
            try await sidecar.logs(reason)
        }
    }

    // MARK: Files that change

    @Test func `certificates are replaced under load without a failed request`() async throws {
        try await TLSSidecar.run { sidecar in
            let stop = sidecar.folder.path("stop")
            let load = try TestProcess(
                "load", executable: try Tools.path("python3"),
                arguments: [
                    Products.root.appendingPathComponent("Tests/TLS/https-load.py").path,
                    String(sidecar.port), sidecar.certificate("ca"), stop, TLSSidecar.body,
                ], folder: sidecar.folder)
            do {
                // A pair whose halves do not belong together stays out.
                try sidecar.replace("server.pem", with: "server-next.pem")
                try await sidecar.logs("does not belong to the certificate")
                #expect(try await sidecar.curl().status == 0)
                try sidecar.replace("server-key.pem", with: "server-next-key.pem")
                try await sidecar.logs("certificates were replaced")
                try await eventually("new connections meet the new certificate") {
                    try await sidecar.handshake([]).contains("CN = server-next")
                }
                try "".write(toFile: stop, atomically: true, encoding: .utf8)
                #expect(try await load.exited(within: .seconds(20)) == 0)
            } catch {
                await load.dispose()
                throw error
            }
            let seen = try JSON.parse(load.log)
            #expect(seen["failures"]?.array?.isEmpty == true, "\(load.log)")
            #expect((seen["requests"]?.int64 ?? 0) > 20)
            #expect(seen["kept"]?.array?.compactMap(\.string) == ["server"])
        }
    }

    // MARK: Settings

    @Test func `every wrong setting is told at once`() async throws {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let made = try await TLSSidecar.makeCertificates(folder.makeFolder("certificates"))
        let result = try await Tools.run(
            Products.path("weir-sidecar"),
            [
                "--standalone", "--policy", "p", "--agent", "a", "--listen", "127.0.0.1:0",
                "--upstream", "https://localhost,http://127.0.0.1:2", "--tls-certificate",
                "\(made)/server.pem", "--tls-key", "\(made)/client-key.pem",
                "--tls-client-identities", "spiffe://mesh*", "--tls-minimum", "1.1",
                "--upstream-key", "/nowhere",
            ])
        #expect(result.status == 2)
        for problem in [
            "--tls-key: \(made)/client-key.pem does not belong to the certificate",
            "--tls-client-ca: is needed", "--tls-client-identities: \"spiffe://mesh*\"",
            "--tls-minimum: \"1.1\"", "--upstream-certificate: is needed",
            "--upstream: all instances need one scheme",
        ] {
            #expect(result.output.contains(problem), "\(result.output)")
        }
    }
}

extension TLSSidecar {
    /// As a mounted secret is replaced: another file takes the name.
    fileprivate func replace(_ name: String, with other: String) throws {
        let (from, to) = (folder.path("certificates/\(other)"), folder.path("certificates/\(name)"))
        let step = to + ".new"
        try FileManager.default.copyItem(atPath: from, toPath: step)
        guard rename(step, to) == 0 else { throw TestProcess.Failed(description: "rename") }
    }
}
