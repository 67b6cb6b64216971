import Foundation
import Testing
import WeirCore

/// The gateway as clients of the OpenAI API meet it: the `openai` package itself, and curl. What
/// they pay is what the ledger says, to the n$.
@Suite(.timeLimit(.minutes(4)), .serialized)
struct OpenAIClientTests {
    private static let package = PythonTool(name: "openai", requirement: "openai==3.54.0")
    /// The sample's own words: what it writes depends on the prompt alone.
    private static let prompt = "Apple stock surged 5% after a strong quarter. What now?"

    // MARK: The mesh

    /// The project's policy with a tier that is poor, one with a request a day and one with a
    /// request a second.
    private func withMesh(_ test: (Mesh, Script) async throws -> Void) async throws {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let policy = try AcceptancePolicy(in: folder)
        let tiers = [
            ("poor", "0.0003", ""), ("rare", "1", "  dailyRequests: 1"),
            ("slow", "1", "  rateLimit: {requestsPerSecond: 1, burst: 1}"),
        ]
        try policy.add(
            "tiers-of-the-test.yaml",
            tiers.map { name, budget, more in
                """
                apiVersion: weir.mesh/v1
                kind: Tier
                metadata:
                  name: \(name)
                spec:
                  monthlyBudget: "\(budget)"
                  agents: [llama2-7b]
                \(more)
                """
            }.joined(separator: "\n---\n"))
        try await Mesh.run(
            .init(agents: ["gpt4-turbo", "llama2-7b"], policyFolder: policy.path)
        ) { mesh in
            try await test(mesh, Script(mesh: mesh, folder: folder, python: Self.package.python))
        }
    }

    /// Runs lines of Python with a `client(user, tier)` and gives the JSON that they print last.
    private struct Script {
        let mesh: Mesh
        let folder: TemporaryFolder
        let python: String

        private static let prelude = """
            import json, sys, time
            import openai
            base, keys = sys.argv[1], json.loads(sys.argv[2])
            PROMPT = [{"role": "user", "content": \(JSONValue.string(prompt).text)}]
            def client(user, **options):
                return openai.OpenAI(
                    base_url=base + "/v1", api_key=keys[user], timeout=30, **options)
            def weir(response):
                return {k: v for k, v in response.headers.items() if k.startswith("weir-")}
            def failure(call):
                try:
                    call()
                except openai.APIStatusError as error:
                    return {
                        "exception": type(error).__name__, "status": error.status_code,
                        "code": error.code, "type": error.type, "param": error.param,
                        "message": error.message, "headers": dict(error.response.headers)}

            """

        /// - Parameter users: the tier of each.
        func run(_ users: [String: String], _ lines: String) async throws -> JSONValue {
            var keys: JSONObject = [:]
            for (user, tier) in users {
                keys[user] = .string(TestToken.mint(user: user, tier: tier, key: Mesh.userKey))
            }
            keys["nobody"] = "sk-wrong"
            let path = try folder.write("script.py", Self.prelude + lines)
            let result = try await Tools.run(
                python, [path, mesh.gateway.base, JSONValue.object(keys).text],
                environment: ["NO_PROXY": "*"], within: .seconds(60))
            let last = result.output.split(separator: "\n").last.map(String.init) ?? ""
            try #require(result.status == 0, "\(result.output)")
            return try JSON.parse(last)
        }
    }

    private func amount(_ value: JSONValue?) throws -> NanoUSD {
        try #require(value?.string.flatMap { NanoUSD(usd: $0) }, "\(value?.text ?? "-")")
    }

    /// What llama's usage costs: 0.05 and 0.25 USD per million tokens.
    private func llamaPrice(_ usage: JSONValue?) throws -> NanoUSD {
        let input = try #require(usage?["prompt_tokens"]?.int64)
        let output = try #require(usage?["completion_tokens"]?.int64)
        return NanoUSD(input * 50 + output * 250)
    }

    /// Requests at the gateway by their end.
    private func requests(_ mesh: Mesh, tier: String, status: String) async throws -> Int {
        let name =
            "orchestrator_requests_total{type=\"chat_completions\",tier=\"\(tier)\","
            + "status=\"\(status)\"}"
        let text = try await mesh.gatewayAdmin.get("/metrics").text
        let line = text.split(separator: "\n").first { $0.hasPrefix(name) }
        return line?.split(separator: " ").last.flatMap { Int($0) } ?? 0
    }

    // MARK: The package

    @Test(
        .enabled("the openai package cannot be installed from PyPI; see scripts/test") {
            await Self.package.install()
        })
    func `the openai package chats, streams and lists models`() async throws {
        try await withMesh { mesh, script in
            let seen = try await script.run(
                ["alice": "free", "bert": "free", "carol": "premium"],
                """
                llama = client("alice")
                plain = llama.chat.completions.with_raw_response.create(
                    model="llama", messages=PROMPT, seed=7, n=2, max_tokens=4000)
                whole = plain.parse()
                streamer = client("bert")
                def chunks(**options):
                    stream = streamer.chat.completions.create(
                        model="llama2-7b", messages=PROMPT, stream=True, **options)
                    return [chunk.model_dump() for chunk in stream]
                bare = chunks()
                counted = chunks(stream_options={"include_usage": True})
                print(json.dumps({
                    "headers": weir(plain), "choices": len(whole.choices),
                    "text": whole.choices[0].message.content,
                    "usage": whole.usage.model_dump(),
                    "bare": bare, "counted": counted,
                    "free": [model.id for model in llama.models.list()],
                    "premium": [model.id for model in client("carol").models.list()],
                    "one": client("carol").models.retrieve("gpt4").model_dump(),
                }))
                """)
            // Whole: the header says the cost, which is the usage's and the ledger's.
            let headers = seen["headers"]
            #expect(headers?["weir-decision"] == "admitted")
            #expect(headers?["weir-agent"] == "llama2-7b")
            #expect(headers?["weir-model"] == "llama-2-7b-chat")
            #expect(headers?["weir-max-tokens"] == "400")
            #expect(seen["choices"] == 2)
            let cost = try amount(headers?["weir-cost-usd"])
            #expect(try cost == llamaPrice(seen["usage"]))
            let books = try await mesh.settledBooks(of: "alice")
            #expect(books.consumed == cost)
            #expect(try amount(headers?["weir-budget-remaining-usd"]) == books.limit - cost)
            try await checkStreams(seen, mesh)

            #expect(seen["free"] == ["llama2-7b", "llama-2-7b-chat", "llama", "llama2"])
            #expect(
                seen["premium"] == [
                    "gpt4-turbo", "gpt-4-turbo", "gpt-4", "gpt4", "llama2-7b", "llama-2-7b-chat",
                    "llama", "llama2",
                ])
            #expect(seen["one"]?["id"] == "gpt4" && seen["one"]?["owned_by"] == "gpt4-turbo")
        }
    }

    /// Usage is asked for upstream in either case; only who asked for it sees it.
    private func checkStreams(_ seen: JSONValue, _ mesh: Mesh) async throws {
        let bare = try #require(seen["bare"]?.array)
        let counted = try #require(seen["counted"]?.array)
        #expect(bare.allSatisfy { $0["choices"]?.array?.isEmpty == false })
        #expect(counted.count == bare.count + 1)
        let usage = try #require(counted.last)
        #expect(usage["choices"] == [])
        func text(_ chunks: [JSONValue]) -> String {
            chunks.compactMap { $0["choices"]?.array?.first?["delta"]?["content"]?.string }
                .joined()
        }
        #expect(text(bare) == text(counted) && !text(bare).isEmpty)
        // The same question twice.
        let price = try llamaPrice(usage["usage"])
        let books = try await mesh.settledBooks(of: "bert")
        #expect(books.consumed == price + price)
    }

    @Test(
        .enabled("the openai package cannot be installed from PyPI; see scripts/test") {
            await Self.package.install()
        })
    func `refusals become the exceptions that callers of the package expect`() async throws {
        try await withMesh { mesh, script in
            let seen = try await script.run(
                ["alice": "free", "poor": "poor", "rare": "rare", "slow": "slow"],
                """
                def ask(user, model="llama", retries=2, **options):
                    return client(user, max_retries=retries).chat.completions.create(
                        model=model, messages=PROMPT, **options)
                def until_it_fails(user):
                    for _ in range(40):
                        error = failure(lambda: ask(user))
                        if error: return error
                voice = {"audio": {"voice": "alloy"}}
                seen = {
                    "key": failure(lambda: ask("nobody")),
                    "models": failure(lambda: client("nobody").models.list()),
                    "unknown": failure(lambda: ask("alice", "gpt-17")),
                    "tier": failure(lambda: ask("alice", "gpt-4")),
                    "audio": failure(lambda: ask("alice", extra_body=voice)),
                    "budget": until_it_fails("poor"), "quota": until_it_fails("rare"),
                }
                failure(lambda: ask("slow", retries=0))
                seen["rate"] = failure(lambda: ask("slow", retries=0))
                began = time.monotonic()
                ask("slow")
                seen["waited"] = round(time.monotonic() - began, 1)
                print(json.dumps(seen))
                """)
            func check(
                _ name: String, _ exception: String, _ status: Int64, _ code: String,
                retries: Bool = false
            ) {
                let error = seen[name]
                #expect(error?["exception"]?.string == exception, "\(name)")
                #expect(error?["status"]?.int64 == status, "\(name)")
                #expect(error?["code"]?.string == code, "\(name)")
                #expect((error?["headers"]?["x-should-retry"] == nil) == retries, "\(name)")
            }
            check("key", "AuthenticationError", 401, "invalid_api_key")
            check("models", "AuthenticationError", 401, "invalid_api_key")
            check("unknown", "NotFoundError", 404, "model_not_found")
            check("tier", "PermissionDeniedError", 403, "agent_not_allowed")
            check("audio", "PermissionDeniedError", 403, "unmetered_path")
            check("budget", "APIStatusError", 402, "budget_exhausted")
            check("quota", "RateLimitError", 429, "quota_exhausted")
            check("rate", "RateLimitError", 429, "rate_limited", retries: true)
            #expect(seen["budget"]?["type"] == "insufficient_quota")
            #expect(seen["audio"]?["param"] == "audio")
            #expect(seen["rate"]?["headers"]?["retry-after"] == "1")
            // Asked once each; the package would have tried three times.
            #expect(try await requests(mesh, tier: "poor", status: "budget_exhausted") == 1)
            #expect(try await requests(mesh, tier: "rare", status: "quota_exhausted") == 1)
            // With its retries the package comes back when it was told to.
            #expect(try await requests(mesh, tier: "slow", status: "rate_limited") >= 2)
            let books = try await mesh.settledBooks(of: "poor")
            #expect(books.consumed <= books.limit && books.consumed > .zero)
        }
    }

    @Test(
        .enabled("the openai package cannot be installed from PyPI; see scripts/test") {
            await Self.package.install()
        })
    func `the package meets an agent that is down and streams that end early`() async throws {
        try await withMesh { mesh, script in
            try await mesh.agents.setFault("gpt4-turbo", "fail", argument: 503)
            let fallback = try await script.run(
                ["alice": "premium"],
                """
                answer = client("alice").chat.completions.with_raw_response.create(
                    model="gpt-4", messages=PROMPT)
                print(json.dumps({
                    "headers": weir(answer), "model": answer.parse().model,
                    "usage": answer.parse().usage.model_dump()}))
                """)
            let headers = fallback["headers"]
            #expect(headers?["weir-decision"] == "fallback")
            #expect(headers?["weir-agent"] == "llama2-7b")
            #expect(fallback["model"] == "llama-2-7b-chat")
            // What this provider refuses with 503 is free by the policy (`whenAgentRefuses`).
            let cost = try amount(headers?["weir-cost-usd"])
            #expect(try cost == llamaPrice(fallback["usage"]))
            #expect(try await mesh.settledBooks(of: "alice").consumed == cost)

            try await mesh.agents.setFault("llama2-7b", "slow", argument: 3_000, times: 1)
            let left = try await script.run(
                ["bert": "free"],
                """
                stream = client("bert").chat.completions.create(
                    model="llama", messages=PROMPT, stream=True)
                taken = [next(stream).id for _ in range(3)]
                stream.close()
                print(json.dumps(len(taken)))
                """)
            #expect(left == 3)
            // The sidecar reads to the end, so that the true usage is charged.
            let books = try await mesh.settledBooks(of: "bert")
            #expect(books.consumed > .zero && books.consumed < NanoUSD(400 * 250))
            #expect(try await mesh.agents.count("aborted", of: "llama2-7b") == 0)
            try await eventually("the gateway counts the client that left") {
                try await requests(mesh, tier: "free", status: "cancelled") == 1
            }

            try await mesh.agents.setFault("llama2-7b", "die", argument: 700, times: 1)
            let died = try await script.run(
                ["dora": "free"],
                """
                count, error = 0, None
                try:
                    for chunk in client("dora").chat.completions.create(
                            model="llama", messages=PROMPT, stream=True):
                        count += 1
                except openai.APIError as failure:
                    error = failure
                print(json.dumps({"count": count, "code": error and error.code}))
                """)
            #expect(died["code"] == "upstream_error", "\(died.text)")
            #expect(try #require(died["count"]?.int64) > 0)
        }
    }

    // MARK: curl

    @Test func `curl sees each event as it comes and the cost in the trailers`() async throws {
        try await withMesh { mesh, _ in
            try await mesh.agents.setFault("llama2-7b", "slow", argument: 2_000, times: 1)
            let headers = mesh.folder.path("headers")
            let token = TestToken.mint(user: "alice", tier: "free", key: Mesh.userKey)
            let request: JSONValue = [
                "model": "llama", "stream": true,
                "messages": [["role": "user", "content": .string(Self.prompt)]],
            ]
            let curl = try TestProcess(
                "curl", executable: try Tools.path("curl"),
                arguments: [
                    "-sS", "-N", "--max-time", "30", "-D", headers,
                    "-H", "Authorization: Bearer \(token)", "-H",
                    "Content-Type: application/json", "-d", request.text,
                    mesh.gateway.base + "/v1/chat/completions",
                ], folder: mesh.folder)
            do {
                _ = try await curl.line(containing: "\"delta\"")
                // The agent still writes.
                #expect(try await mesh.agents.count("completed", of: "llama2-7b") == 0)
                #expect(try await curl.exited(within: .seconds(30)) == 0)
            } catch {
                await curl.dispose()
                throw error
            }
            #expect(curl.log.contains("data: [DONE]"))
            let fields = try String(contentsOfFile: headers, encoding: .utf8)
                .split(separator: "\r\n")
            func field(_ name: String) -> String? {
                let line = fields.first { $0.hasPrefix(name + ": ") }
                return line.map { String($0.dropFirst(name.count + 2)) }
            }
            #expect(field("trailer") == "weir-cost-usd, weir-budget-remaining-usd")
            let cost = try amount(field("weir-cost-usd").map { .string($0) })
            let books = try await mesh.settledBooks(of: "alice")
            #expect(cost > .zero && books.consumed == cost)
            let remaining = try amount(field("weir-budget-remaining-usd").map { .string($0) })
            #expect(remaining == books.limit - cost)
        }
    }
}
