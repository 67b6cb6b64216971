import SidecarCore
import Testing
import WeirCore

@testable import SidecarGateway
@testable import SidecarWiring

/// The variables that the platform's deployments set already mean here what they meant there.
@Suite struct PlatformSettingsTests {
    private func options(_ role: String, _ environment: [String: String]) throws -> SidecarOptions {
        let line =
            "--listen 127.0.0.1:8000 --control-plane http://127.0.0.1:8081 --data /tmp/d " + role
        let defaults = [
            "WEIR_JOIN_TOKEN": "token",
            "JWT_SECRET_KEY": String(decoding: TokenVerifierTests.key, as: UTF8.self),
        ]
        let values = try OptionValues(
            table: SidecarOptionTable.all, arguments: line.split(separator: " ").map(String.init),
            environment: defaults.merging(environment) { $1 }
        ) { (path) throws(OptionProblem) in
            throw OptionProblem(option: path, message: "is not there")
        }
        return try SidecarOptions(values, hostName: "host") { _ in [.loopback(port: 0)] }
    }

    private func gateway(_ environment: [String: String]) throws -> SidecarOptions.Gateway {
        guard case .gateway(let mode) = try options("--role gateway", environment).mode else {
            throw OptionProblem(option: "--role", message: "is another one")
        }
        return mode
    }

    @Test(arguments: [
        ("FINBERT_SERVICE_URL", "finbert"), ("LLAMA_SERVICE_URL", "llama2-7b"),
        ("GPT4_SERVICE_URL", "gpt4-turbo"), ("TFT_SERVICE_URL", "tft"),
        ("RISK_SERVICE_URL", "risk"),
    ])
    func whereAgentsServicesAre(variable: String, agent: String) throws {
        let mode = try gateway([variable: "http://agent-service:8000"])
        #expect(mode.services.keys.sorted() == [agent])
        #expect(mode.services[agent]?.map(\.authority) == ["agent-service:8000"])
    }

    @Test(arguments: ["OPENAI_API_KEY", "HUGGINGFACE_API_KEY", "ANTHROPIC_API_KEY"])
    func theKeysOfProviders(variable: String) throws {
        let role = "--agent a --upstream http://127.0.0.1:9000"
        let found = try options(role, [variable: "example-key-0123456789"])
        let given = SidecarOptionTable.credentials.map(\.1).filter {
            found.credentials.authorization($0) != nil
        }
        #expect(given == [variable])
        #expect(found.credentials.authorization(variable) == "Bearer example-key-0123456789")
        #expect(!found.shown.contains { $0.value.contains("example-key") })
    }

    @Test func bothKeysOfUsersTokensAreValid() throws {
        let previous = String(decoding: TokenVerifierTests.previous, as: UTF8.self)
        let now = TokenVerifierTests.now
        func taken(_ environment: [String: String]) throws -> [Bool] {
            let verifier = try gateway(environment).configuration.verifier
            return [TokenVerifierTests.key, TokenVerifierTests.previous].map { key in
                let token = TokenVerifierTests.token(payload: TokenVerifierTests.good, key: key)
                return (try? verifier.verify(token, now: now)) != nil
            }
        }
        #expect(try taken([:]) == [true, false])
        #expect(try taken(["JWT_SECRET_KEY_PREVIOUS": previous]) == [true, true])
        #expect(try taken(["JWT_SECRET_KEY": previous]) == [false, true])
    }

    @Test func whoMayCallAndHowMany() throws {
        let mode = try gateway([
            "CORS_ORIGINS": #"["http://localhost:3000"]"#, "MAX_CONCURRENT_REQUESTS": "100",
        ])
        #expect(mode.configuration.origins == AllowedOrigins(["http://localhost:3000"]))
        #expect(mode.configuration.analysesMax == 100)
    }

    @Test func whereThePolicyIsSilent() throws {
        let found = try options(
            "--role gateway", ["CIRCUIT_BREAKER_THRESHOLD": "5", "AGENT_TIMEOUT_DEFAULT": "30"])
        #expect(found.breakerThreshold == 5 && found.agentTimeoutSeconds == 30)
    }

    @Test(arguments: [
        ([:], LogLevel.info), (["DEBUG": "true"], .debug), (["LOG_LEVEL": "DEBUG"], .debug),
        (["DEBUG": "true", "LOG_LEVEL": "DEBUG"], .debug), (["LOG_LEVEL": "error"], .error),
    ])
    func debugMode(environment: [String: String], level: LogLevel) throws {
        #expect(try options("--role gateway", environment).logLevel == level)
    }
}
