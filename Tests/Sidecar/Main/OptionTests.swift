import SidecarCore
import Testing
import WeirCore
import WeirPolicy

@testable import SidecarGateway
@testable import SidecarWiring

@Suite struct OptionTests {
    private func options(
        _ line: String, environment: [String: String] = [:], files: [String: String] = [:]
    ) throws(OptionProblems) -> SidecarOptions {
        let values = try OptionValues(
            table: SidecarOptionTable.all, arguments: line.split(separator: " ").map(String.init),
            environment: environment
        ) { (path) throws(OptionProblem) in
            guard let text = files[path] else {
                throw OptionProblem(option: path, message: "is not there")
            }
            return Array(text.utf8)
        }
        return try SidecarOptions(values, hostName: "host") { name in
            name == "agent.local" ? [.loopback(port: 0)] : []
        }
    }

    private func problems(
        _ line: String, environment: [String: String] = [:], files: [String: String] = [:]
    ) -> [String] {
        do {
            _ = try options(line, environment: environment, files: files)
            return []
        } catch {
            return error.list.map(\.description)
        }
    }

    private let standalone =
        "--standalone --policy p.json --agent finbert --listen 127.0.0.1:8000 "
        + "--upstream http://127.0.0.1:9000"
    private let agent =
        "--agent finbert --listen 127.0.0.1:8000 --upstream http://127.0.0.1:9000 "
        + "--control-plane http://127.0.0.1:8081 --data /tmp/d"
    private let gateway =
        "--role gateway --listen 127.0.0.1:8000 --control-plane http://127.0.0.1:8081 "
        + "--data /tmp/d"
    private let secrets = [
        "WEIR_JOIN_TOKEN": "token", "JWT_SECRET_KEY": String(repeating: "k", count: 32),
    ]

    @Test func aStandaloneSidecar() throws {
        let found = try options(standalone + " --workers=3 --journal-keep 64MiB --admin [::1]:9090")
        guard case .standalone(let mode) = found.mode else {
            Issue.record("another mode")
            return
        }
        #expect(mode.agent == "finbert" && mode.policyPath == "p.json")
        #expect(mode.upstreams.map(\.authority) == ["127.0.0.1:9000"])
        #expect(mode.upstreams.map(\.addresses) == [[.loopback(port: 9000)]])
        #expect(mode.journalKeepBytes == 64 << 20)
        #expect(found.workers == 3 && found.listen == .loopback(port: 8000))
        #expect(found.admin?.description == "[::1]:9090")
        #expect(found.instance == "host" && found.logLevel == .info)
    }

    @Test func anAgentOfAMesh() throws {
        let found = try options(agent, environment: ["WEIR_JOIN_TOKEN": "token", "DEBUG": "true"])
        guard case .agent(let mode) = found.mode else {
            Issue.record("another mode")
            return
        }
        #expect(mode.mesh.joinToken == "token" && mode.mesh.dataFolder == "/tmp/d")
        #expect(mode.mesh.controlPlane.map(\.address) == [.loopback(port: 8081)])
        #expect(mode.advertise == "127.0.0.1:8000", "what it listens on, unless told")
        #expect(found.logLevel == .debug)
    }

    @Test func severalInstancesOfAnAgent() throws {
        let line =
            "--agent finbert --agent-version v2 --listen 127.0.0.1:8000 "
            + "--control-plane http://127.0.0.1:8081 --data /tmp/d --upstream "
        let found = try options(
            line + "http://127.0.0.1:9000,unix:/a,http://agent.local:9001", environment: secrets)
        guard case .agent(let mode) = found.mode else {
            Issue.record("another mode")
            return
        }
        #expect(mode.version == "v2")
        #expect(
            mode.upstreams.map(\.address.description) == [
                "127.0.0.1:9000", "unix:/a", "127.0.0.1:9001",
            ])
        #expect(mode.upstreams.map { $0.name?.host } == [nil, nil, "agent.local"])
        let twice = problems(
            line + "http://127.0.0.1:9000,http://127.0.0.1:9000", environment: secrets)
        #expect(twice == ["--upstream: 127.0.0.1:9000,127.0.0.1:9000 has an address twice"])
    }

    @Test func theOutboundListenerIsForTheAgentAlone() throws {
        let line = agent + " --gateway http://127.0.0.1:8000 --outbound "
        let found = try options(line + "127.0.0.1:7001", environment: secrets)
        guard case .agent(let mode) = found.mode else {
            Issue.record("another mode")
            return
        }
        #expect(mode.outbound?.listen == .loopback(port: 7001))
        #expect(mode.outbound?.gateway.address == .loopback(port: 8000))
        #expect(
            problems(line + "0.0.0.0:7001", environment: secrets).map { $0.prefix(11) }
                == ["--outbound:"])
        #expect(
            problems(agent + " --outbound 127.0.0.1:1", environment: secrets)
                == ["--gateway: is needed"])
        #expect(
            problems(agent + " --gateway http://127.0.0.1:1", environment: secrets)
                == ["--outbound: is needed where a gateway is named"])
    }

    @Test func aGateway() throws {
        var environment = secrets
        environment["CORS_ORIGINS"] = "[\"https://a.example\"]"
        environment["MAX_CONCURRENT_REQUESTS"] = "50"
        environment["LLAMA_SERVICE_URL"] = "http://agent.local:7000/,http://127.0.0.1:7001"
        let found = try options(gateway, environment: environment)
        guard case .gateway(let mode) = found.mode else {
            Issue.record("another mode")
            return
        }
        #expect(mode.configuration.origins == AllowedOrigins(["https://a.example"]))
        #expect(mode.configuration.analysesMax == 50)
        let llama = try #require(mode.services["llama2-7b"])
        #expect(llama.map(\.address) == [.loopback(port: 7000), .loopback(port: 7001)])
        #expect(llama.map(\.authority) == ["agent.local:7000", "127.0.0.1:7001"])
    }

    @Test func theControlPlaneMayBeElsewhereOnlyWhenTold() throws {
        let line = agent.replacing("127.0.0.1:8081", with: "10.0.0.1:8401")
        var environment = ["WEIR_JOIN_TOKEN": "token"]
        #expect(problems(line, environment: environment).count == 1)
        environment["WEIR_MESH_PLAINTEXT"] = "yes"
        #expect(problems(line, environment: environment).count == 2)
        environment["WEIR_MESH_PLAINTEXT"] = "network"
        guard case .agent(let mode) = try options(line, environment: environment).mode,
            case .agent(let near) = try options(agent, environment: environment).mode
        else {
            Issue.record("another mode")
            return
        }
        #expect(mode.mesh.isExposed && !near.mesh.isExposed)
    }

    @Test func flagThenEnvironmentThenFileThenDefault() throws {
        let files = ["c.json": "{\"workers\": 4, \"instance\": \"file\"}"]
        let line = standalone + " --config c.json"
        #expect(try options(standalone).workers == 1)
        #expect(try options(line, files: files).workers == 4)
        #expect(try options(line, environment: ["WEIR_WORKERS": "5"], files: files).workers == 5)
        #expect(
            try options(line + " --workers 6", environment: ["WEIR_WORKERS": "5"], files: files)
                .workers == 6)
        #expect(try options(line, files: files).instance == "file")
    }

    /// Of every setting that there is: a flag goes before its variable, that before the file, that
    /// before the default.
    @Test(arguments: SidecarOptionTable.all.filter { $0.kind != .secret && $0.name != "config" })
    func eachSettingHasItsPrecedence(option: Option) throws {
        func value(_ sources: Set<String>) throws -> OptionValues.Value? {
            var arguments = ["--config", "c.json"]
            if sources.contains("flag") {
                arguments.append(
                    option.kind == .flag ? "--" + option.name : "--\(option.name)=flag")
            }
            let file = sources.contains("file") ? "{\"\(option.name)\": \"file\"}" : "{}"
            let environment = option.environment.map { [$0: "environment"] } ?? [:]
            return try OptionValues(
                table: SidecarOptionTable.all, arguments: arguments,
                environment: sources.contains("environment") ? environment : [:]
            ) { _ in Array(file.utf8) }[option.name]
        }
        #expect(try value([])?.text == option.fallback)
        #expect(try value(["file"])?.text == "file")
        if option.environment != nil {
            #expect(try value(["file", "environment"])?.text == "environment")
        }
        if option.hasArgument {
            let flag = try value(["file", "environment", "flag"])
            #expect(flag?.text == (option.kind == .flag ? "true" : "flag"))
            #expect(flag?.origin == "--" + option.name)
        }
    }

    /// Secrets: the variable before the file that `…_FILE` names, and nowhere else.
    @Test(arguments: SidecarOptionTable.all.filter { $0.kind == .secret })
    func eachSecretHasItsPrecedence(option: Option) throws {
        let name = try #require(option.environment)
        func values(_ environment: [String: String]) throws -> OptionValues {
            try OptionValues(
                table: SidecarOptionTable.all, arguments: [], environment: environment
            ) { _ in Array("file\n".utf8) }
        }
        let file = try values([name + "_FILE": "/run/secret"])
        #expect(file[option.name]?.text == "file")
        #expect(file.secretFiles == [option.name: "/run/secret"])
        let both = try values([name: "variable", name + "_FILE": "/run/secret"])
        #expect(both[option.name]?.text == "variable")
        #expect(both.secretFiles.isEmpty)
        #expect(
            problems("--config c.json", files: ["c.json": "{\"\(option.name)\": \"x\"}"])
                .contains("c.json: \(option.name): there is no such setting here"))
    }

    @Test func theEnvironmentSpeaksWhereThePolicyIsSilent() throws {
        let found = try options(
            standalone,
            environment: ["CIRCUIT_BREAKER_THRESHOLD": "9", "AGENT_TIMEOUT_DEFAULT": "7"])
        var agent = AgentPolicy(name: "a", wireProtocol: .json, path: "/", models: [])
        #expect(found.filled(agent).breaker.consecutiveFailures == 9)
        #expect(found.filled(agent).timeouts.totalMilliseconds == 7_000)
        agent.breaker.consecutiveFailures = 3
        agent.timeouts.totalMilliseconds = 500
        #expect(found.filled(agent) == agent)
    }

    @Test func aKeyThatNoHeaderCanCarryIsRefused() {
        let found = problems(standalone, environment: ["OPENAI_API_KEY": "two words"])
        #expect(found == ["OPENAI_API_KEY: " + SecretText.need])
    }

    @Test func everythingThatIsWrongIsSaidAtOnce() {
        let found = problems(
            "--listen nowhere --upstream https://x --workers 0 --admin 1 --bogus --data "
                + "--control-plane http://10.0.0.1:80",
            environment: ["LOG_LEVEL": "loud", "AGENT_TIMEOUT_DEFAULT": "soon"])
        // A line that cannot be read is said before what it means.
        #expect(found == ["--bogus: there is no such option", "--data: a value is missing"])
        let rest = problems(
            "--listen nowhere --upstream https://x --workers 0 --admin 1 "
                + "--control-plane http://10.0.0.1:80",
            environment: ["LOG_LEVEL": "loud", "AGENT_TIMEOUT_DEFAULT": "soon"])
        for option in [
            "--listen", "--upstream", "--workers", "--admin", "--control-plane", "--agent",
            "--data", "WEIR_JOIN_TOKEN", "LOG_LEVEL", "AGENT_TIMEOUT_DEFAULT",
        ] {
            #expect(rest.contains { $0.hasPrefix(option + ":") }, "\(option) in \(rest)")
        }
        #expect(rest.count == 10)
    }

    @Test(arguments: [
        ("--workers", "--workers: a value is missing"),
        ("--workers=", "--workers: a value is missing"),
        ("--workers 1 --workers 2", "--workers: is given twice"),
        ("--standalone=yes", "--standalone: takes no value"),
        ("extra", "extra: there is no such option"),
        ("--join-token x", "--join-token: there is no such option"),
        ("--config gone.json", "gone.json: is not there"),
        ("--config a.json", "a.json: workers2: there is no such setting here"),
        ("--config b.json", "b.json: a JSON object is needed"),
    ])
    func whatCannotBeRead(line: String, problem: String) {
        let files = ["a.json": "{\"workers2\": 1}", "b.json": "[]"]
        #expect(problems(line, files: files).contains(problem))
    }

    @Test func secretsComeFromFilesWithoutTheirLineEnd() throws {
        let environment = ["WEIR_JOIN_TOKEN_FILE": "/run/token"]
        let found = try options(
            agent, environment: environment, files: ["/run/token": "secret\r\n"])
        guard case .agent(let mode) = found.mode else { return }
        #expect(mode.mesh.joinToken == "secret")
        #expect(
            problems(agent, environment: environment)
                .contains("WEIR_JOIN_TOKEN_FILE: is not there"))
    }

    @Test func weakKeysAreRefused() {
        var environment = secrets
        environment["JWT_SECRET_KEY"] = "short"
        #expect(
            problems(gateway, environment: environment)
                == ["JWT_SECRET_KEY: is shorter than 32 bytes"])
    }

    /// A key before the current one verifies nothing by itself: it is there to run out.
    @Test func everyProblemOfAGatewayIsSaidAtOnce() {
        let environment = [
            "WEIR_JOIN_TOKEN": "token", "JWT_SECRET_KEY_PREVIOUS": "short", "CORS_ORIGINS": "x",
            "MAX_CONCURRENT_REQUESTS": "0",
        ]
        let found = problems(gateway, environment: environment).compactMap {
            $0.split(separator: ":").first.map(String.init)
        }
        #expect(
            found == [
                "JWT_SECRET_KEY", "JWT_SECRET_KEY_PREVIOUS", "CORS_ORIGINS",
                "MAX_CONCURRENT_REQUESTS",
            ])
    }

    @Test(arguments: [
        #"["https://a/b"]"#, #"["ftp://a"]"#, #"[1]"#, #"{"a":1}"#, #"["https://"]"#,
    ])
    func originsThatCannotBeUsed(text: String) {
        var environment = secrets
        environment["CORS_ORIGINS"] = text
        let found = problems(gateway, environment: environment)
        #expect(found.count == 1 && found.first?.hasPrefix("CORS_ORIGINS:") == true, "\(found)")
    }

    @Test func tokensMustBeOfTheIssuerAndForTheAudience() throws {
        var environment = secrets
        environment["JWT_SECRET_KEY"] = String(decoding: TokenVerifierTests.key, as: UTF8.self)
        environment["JWT_ISSUER"] = "login"
        environment["JWT_AUDIENCE"] = "weir"
        guard case .gateway(let mode) = try options(gateway, environment: environment).mode else {
            Issue.record("another mode")
            return
        }
        let now = UnixTime(seconds: 1_000)
        func isTaken(_ issuer: String, _ audience: String) -> Bool {
            let token = TokenVerifierTests.token(
                payload: #"{"sub":"a","exp":2000,"iss":"\#(issuer)","aud":"\#(audience)"}"#)
            return (try? mode.configuration.verifier.verify(token, now: now)) != nil
        }
        #expect(isTaken("login", "weir"))
        #expect(!isTaken("other", "weir") && !isTaken("login", "other"))
    }

    @Test(arguments: ["1", "7MiB", "-1", "1GB", "999999999TiB", "KiB", ""])
    func sizesThatCannotBeUsed(text: String) {
        let values = problems(standalone, environment: ["WEIR_JOURNAL_KEEP": text])
        #expect(values.count == (text.isEmpty ? 0 : 1), "an empty variable is an unset one")
        #expect(!problems(standalone + " --journal-keep=" + text).isEmpty)
    }

    @Test func theHelpNamesEverything() {
        let help = OptionValues.help(SidecarOptionTable.all, usage: SidecarOptionTable.usage)
        for option in SidecarOptionTable.all {
            let shown = option.hasArgument ? "--" + option.name : option.environment
            #expect(help.contains(shown ?? "?"))
        }
        #expect(Set(SidecarOptionTable.all.map(\.name)).count == SidecarOptionTable.all.count)
    }
}
