import Testing
import WeirCore
import WeirPolicy

@testable import SidecarCore

private func page(_ path: String, _ change: (inout AdminPages.State) -> Void = { _ in }) throws
    -> (status: Int, body: JSONValue)
{
    var state = AdminPages.State()
    change(&state)
    let page = try #require(AdminPages.page(path: path, state: state, metrics: Metrics()))
    return (page.status, try JSON.parse(page.body))
}

@Suite struct AdminPagesTests {
    @Test func livenessAsksNothingElse() throws {
        let answer = try page("/healthz") { $0.notReady = ["no policy"] }
        #expect(answer.status == 200)
    }

    @Test func readinessNamesItsReasons() throws {
        #expect(try page("/readyz").status == 200)
        let waiting = try page("/readyz") {
            $0.notReady = ["no policy yet"]
            $0.isDraining = true
        }
        #expect(waiting.status == 503)
        #expect(waiting.body["reasons"] == ["no policy yet", "draining"])
        let degraded = try page("/readyz") { $0.degraded = ["control plane lost"] }
        #expect(degraded.status == 200)
        #expect(degraded.body["status"] == "degraded")
    }

    @Test func secretsAreNotShown() throws {
        let answer = try page("/config") {
            $0.policyVersion = PolicyVersion(epoch: 1, number: 7, hash: "ab")
            $0.settings = [
                (name: "JWT_SECRET_KEY", value: "s1"), (name: "OPENAI_API_KEY", value: "s2"),
                (name: "LOG_LEVEL", value: "info"), (name: "--join-token", value: "s3"),
            ]
            $0.documents = [
                ["spec": ["credential": "openai", "password": "s4", "outputTokensMax": 100]]
            ]
        }
        let text = answer.body.text
        for secret in ["s1", "s2", "s3", "s4"] { #expect(!text.contains("\"\(secret)\"")) }
        #expect(answer.body["settings"]?["LOG_LEVEL"] == "info")
        #expect(answer.body["policy_version"]?["number"] == 7)
        let spec = answer.body["documents"]?.array?.first?["spec"]
        #expect(spec?["credential"] == "openai")
        #expect(spec?["outputTokensMax"] == 100)
    }

    @Test func thereAreNoOtherPages() {
        #expect(AdminPages.page(path: "/", state: .init(), metrics: Metrics()) == nil)
    }
}
