import Testing
import WeirCore

@testable import WeirPolicy

@Suite struct PolicyReaderTests {
    @Test func readsEveryField() throws {
        let policy = try PolicyReader.read(try PolicyFixture.documents())
        let mood = try #require(policy.agents["mood"])
        #expect(mood.wireProtocol == .huggingface)
        #expect(mood.path == "/models/mood")
        #expect(mood.models == [.init(id: "org/mood", aliases: ["m1"])])
        #expect(mood.timeouts.connectMilliseconds == 250)
        #expect(mood.timeouts.totalMilliseconds == 10_000)
        #expect(mood.timeouts.idleMilliseconds == 30_000)
        #expect(mood.rateLimit?.requestsPerSecond == 2.5)
        #expect(mood.rateLimit?.burst == 7)
        #expect(mood.concurrency?.requestsMax == 4)
        #expect(mood.concurrency?.queueMax == 8)
        #expect(mood.concurrency?.queueMilliseconds == 2_000)
        #expect(mood.breaker.consecutiveFailures == 3)
        #expect(mood.breaker.openMillisecondsMax == 60_000)
        #expect(mood.healthCheck?.intervalMilliseconds == 2_000)
        #expect(mood.retry.budgetPercent == 5 && mood.retry.budgetPerSecond == 10)
        #expect(mood.retry.attemptsMax == 2 && mood.retry.afterSend)
        #expect(mood.versions == [.init(name: "v1", weight: 9), .init(name: "v2", weight: 1)])
        #expect(policy.agents["writer"]?.retry == .init())
        #expect(mood.credential == "MOOD_KEY")
        #expect(policy.agents["writer"]?.fallbacks == ["scribe"])
        #expect(policy.agents["writer"]?.prompt?.placeholders == ["text", "mood"])
        #expect(policy.agents["writer"]?.outputTokensMax == 100)
    }

    @Test func readsTiersPricesBudgetsAndPlans() throws {
        let policy = try PolicyReader.read(try PolicyFixture.documents())
        let free = try #require(policy.tiers["free"])
        #expect(free.monthlyBudget == NanoUSD(5_000_000_000))
        #expect(free.dailyRequests == 100)
        #expect(free.requestsPerMinute == 20 && free.tokensPerMinute == 9_000)
        #expect(free.whenControlPlaneIsLost == .allowUpTo(NanoUSD(500_000_000)))
        #expect(free.maxLease == NanoUSD(250_000_000))
        let gold = try #require(policy.tiers["gold"])
        #expect(gold.dailyRequests == nil && gold.requestsPerMinute == nil)
        #expect(gold.downgradePreferPercent == 50)
        #expect(policy.prices["org/mood"]?.perRequest == NanoUSD(120_000))
        let big = try #require(policy.prices["big"])
        #expect(big.tokens.input == NanoUSD(10_000_000_000))
        // Not stated: a cached token costs what an input token does, never nothing.
        #expect(big.tokens.cachedInput == big.tokens.input)
        #expect(big.tokens.reasoning == big.tokens.output)
        #expect(big.steps.map(\.inputTokensAbove) == [1000])
        #expect(policy.budgets["acme"]?.scope == .tenant)
        let news = try #require(policy.requestTypes["news"])
        #expect(news.timeoutMilliseconds == 20_000)
        #expect(news.steps[1].dependencies == ["mood"])
        #expect(news.steps[1].input["tags"]?.isOptional == true)
        #expect(news.steps[1].timeoutMilliseconds == 5_000)
    }

    @Test func readsWhichTagsRequestsMayHaveAndWhichHaveABudget() throws {
        func policy(_ path: String, _ value: JSONValue) throws -> Policy {
            try PolicyReader.read(try PolicyFixture.documents(path, value))
        }
        let plain = try PolicyReader.read(try PolicyFixture.documents())
        #expect(plain.tiers["gold"]?.requestTags.allows("launch") == false)
        let some = try policy("/documents/4/spec/requestTags", ["launch", "team:b"])
        #expect(some.tiers["gold"]?.requestTags == .some(["launch", "team:b"]))
        #expect(some.tiers["gold"]?.requestTags.allows("team:b") == true)
        let any = try policy("/documents/4/spec/requestTags", "any")
        #expect(any.tiers["gold"]?.requestTags.allows("whatever") == true)
        let budget: JSONValue = ["scope": "tag", "id": "team:b", "monthlyLimit": "5"]
        #expect(try policy("/documents/6/spec", budget).budgets["acme"]?.scope == .tag)
        let wrong: JSONValue = ["scope": "tag", "id": "team b", "monthlyLimit": "5"]
        let problems = PolicyFixture.problems(
            try PolicyFixture.documents("/documents/6/spec", wrong))
        #expect(problems.map(\.path) == ["/documents/6/spec/id"])
    }

    @Test func namesResolveToAgentAndModel() throws {
        let policy = try PolicyReader.read(try PolicyFixture.documents())
        for (name, agent, model) in [
            ("writer", "writer", "big"), ("b", "writer", "big"), ("big", "writer", "big"),
            ("m1", "mood", "org/mood"),
        ] {
            let found = try #require(policy.resolve(name))
            #expect(found.agent.name == agent)
            #expect(found.model == model)
        }
        #expect(policy.resolve("nobody") == nil)
    }

    /// One wrong place each: where the problem is reported, and a word of what it says.
    @Test(
        arguments: [
            ("/documents/0/apiVersion", "v2", "/documents/0/apiVersion", "must be"),
            ("/documents/0/kind", "Agnet", "/documents/0/kind", "must be one of"),
            ("/documents/0/metadata/name", "Bad Name", "/documents/0/metadata/name", "lower-case"),
            ("/documents/0/metadata/name", "writer", "/documents/1/metadata/name", "already"),
            ("/documents/0/spec/extra", 1, "/documents/0/spec/extra", "unknown field"),
            (
                "/documents/0/spec/retry/budgetPercent", 101,
                "/documents/0/spec/retry/budgetPercent", "100"
            ),
            (
                "/documents/0/spec/versions/1/name", "v1", "/documents/0/spec/versions", "twice"
            ),
            (
                "/documents/0/spec/versions/1/weight", -1,
                "/documents/0/spec/versions/1/weight", "0"
            ),
            (
                "/documents/0/spec/versions", [["name": "v1", "weight": 0]],
                "/documents/0/spec/versions", "no version any weight"
            ),
            (
                "/documents/0/spec/timeouts/conect", "1s", "/documents/0/spec/timeouts/conect",
                "unknown field"
            ),
            (
                "/documents/0/spec/timeouts/connect", 5, "/documents/0/spec/timeouts/connect",
                "duration"
            ),
            (
                "/documents/0/spec/timeouts/connect", "5 s", "/documents/0/spec/timeouts/connect",
                "duration"
            ),
            ("/documents/0/spec/timeouts/total", "25h", "/documents/0/spec/timeouts/total", "from"),
            (
                "/documents/0/spec/rateLimit/requestsPerSecond", 0,
                "/documents/0/spec/rateLimit/requestsPerSecond", "above 0"
            ),
            ("/documents/0/spec/rateLimit/burst", 0, "/documents/0/spec/rateLimit/burst", "from 1"),
            (
                "/documents/0/spec/rateLimit/scope", "mesh", "/documents/0/spec/rateLimit/scope",
                "a tier's requestsPerMinute"
            ),
            (
                "/documents/3/spec/requestsPerMinute", 0, "/documents/3/spec/requestsPerMinute",
                "from 1"
            ),
            (
                "/documents/3/spec/tokensPerMinute", "many",
                "/documents/3/spec/tokensPerMinute", "integer"
            ),
            (
                "/documents/3/spec/rateLimit", ["requestsPerSecond": 1, "scope": "mesh"],
                "/documents/3/spec/rateLimit/scope", "must be instance"
            ),
            ("/documents/0/spec/path", "no-slash", "/documents/0/spec/path", "begin with"),
            ("/documents/0/spec/path", "/a\r\nx: y", "/documents/0/spec/path", "visible ASCII"),
            ("/documents/0/spec/breaker/open", "2m", "/documents/0/spec/breaker/open", "longer"),
            (
                "/documents/0/spec/models/0/aliases/0", "writer",
                "/documents/0/spec/models/0/aliases/0",
                "means agent"
            ),
            (
                "/documents/0/spec/healthWeight", 1_001, "/documents/0/spec/healthWeight",
                "1000"
            ),
            ("/documents/0/spec/cache", [:], "/documents/0/spec/cache/ttl", "missing"),
            (
                "/documents/0/spec/cache", ["ttl": "1m", "scope": "all"],
                "/documents/0/spec/cache/scope", "user, tenant"
            ),
            (
                "/documents/0/spec/cache", ["ttl": "1m", "entriesMax": 0],
                "/documents/0/spec/cache/entriesMax", "from 1"
            ),
            ("/documents/1/spec/fallbacks/0", "ghost", "/documents/1/spec/fallbacks/0", "no agent"),
            ("/documents/2/spec/fallbacks", ["writer"], "/documents/1/spec/fallbacks", "lead back"),
            (
                "/documents/3/spec/monthlyBudget", 5, "/documents/3/spec/monthlyBudget",
                "decimal string"
            ),
            ("/documents/3/spec/monthlyBudget", "-1", "/documents/3/spec/monthlyBudget", "from 0"),
            (
                "/documents/3/spec/monthlyBudget", "9007199.254740992",
                "/documents/3/spec/monthlyBudget", "from 0"
            ),
            ("/documents/3/spec/monthlyBudget", "0.0001", "/documents/3/spec/agents/0", "may cost"),
            ("/documents/3/spec/agents/0", "ghost", "/documents/3/spec/agents/0", "no agent"),
            (
                "/documents/3/spec/whenControlPlaneIsLost", "panic",
                "/documents/3/spec/whenControlPlaneIsLost", "must be insideLeases"
            ),
            (
                "/documents/4/spec/downgrade/preferAtPercent", 70,
                "/documents/4/spec/downgrade/preferAtPercent", "above"
            ),
            (
                "/documents/4/spec/warnAtPercent", [80, 101],
                "/documents/4/spec/warnAtPercent/1", "from 1 to 100"
            ),
            (
                "/documents/4/spec/warnAtPercent", [80, 80],
                "/documents/4/spec/warnAtPercent/1", "must rise"
            ),
            (
                "/documents/4/spec/requestTags", ["launch", "a b"],
                "/documents/4/spec/requestTags/1", "must be a tag"
            ),
            (
                "/documents/4/spec/requestTags", "all", "/documents/4/spec/requestTags",
                "an array"
            ),
            ("/documents/4/spec/warnAtPercent", 80, "/documents/4/spec/warnAtPercent", "an array"),
            (
                "/documents/5/spec/prices/0/model", "other", "/documents/0/spec/models/0",
                "no PriceTable has a price"
            ),
            (
                "/documents/5/spec/prices/3/model", "b", "/documents/5/spec/prices/3/model",
                "is an alias"
            ),
            (
                "/documents/5/spec/prices/3/model", "big", "/documents/5/spec/prices/3/model",
                "price already"
            ),
            (
                "/documents/5/spec/prices/3/perSecond", nil, "/documents/5/spec/prices/3",
                "one of tokens"
            ),
            (
                "/documents/5/spec/prices/1/tokens/output", nil,
                "/documents/5/spec/prices/1/tokens/output", "missing"
            ),
            ("/documents/5/spec/dated", "yesterday", "/documents/5/spec/dated", "date"),
            ("/documents/6/spec/scope", "tier", "/documents/6/spec/id", "no tier"),
            (
                "/documents/7/spec/steps/0/after", ["prose"], "/documents/7/spec/steps/0/after",
                "wait for it"
            ),
            (
                "/documents/7/spec/steps/1/after", ["ghost"], "/documents/7/spec/steps/1/after/0",
                "no step"
            ),
            (
                "/documents/7/spec/steps/1/input/mood", "/steps/ghost/result",
                "/documents/7/spec/steps/1/input/mood", "no step"
            ),
            (
                "/documents/7/spec/steps/1/input/mood", "/data/mood",
                "/documents/7/spec/steps/1/input/mood", "declares no"
            ),
            (
                "/documents/7/spec/steps/1/input/mood", "elsewhere",
                "/documents/7/spec/steps/1/input/mood", "not a JSON Pointer"
            ),
            (
                "/documents/7/spec/steps/1/input/mood", nil,
                "/documents/7/spec/steps/1/agents/gold/0",
                "{{mood}}"
            ),
            (
                "/documents/7/spec/steps/1/agents/free", ["writer"],
                "/documents/7/spec/steps/1/agents/free/0", "does not allow"
            ),
            (
                "/documents/7/spec/steps/1/agents/free", ["ghost"],
                "/documents/7/spec/steps/1/agents/free/0", "no agent"
            ),
            (
                "/documents/7/spec/steps/1/agents/free", nil, "/documents/7/spec/steps/1/agents",
                "which is required"
            ),
            (
                "/documents/7/spec/steps/1/agents/iron", ["mood"],
                "/documents/7/spec/steps/1/agents/iron", "no tier"
            ),
            (
                "/documents/7/spec/steps/1/timeout", "25s", "/documents/7/spec/steps/1/timeout",
                "longer"
            ),
            (
                "/documents/7/spec/steps/1/name", "mood", "/documents/7/spec/steps/1/name",
                "already"
            ),
            (
                "/documents/7/spec/inputSchema/pattern", "a*",
                "/documents/7/spec/inputSchema/pattern",
                "unknown field"
            ),
            (
                "/documents/7/spec/inputSchema/type", "array", "/documents/7/spec/inputSchema/type",
                "object"
            ),
            (
                "/documents/2/spec/prompt", nil, "/documents/7/spec/steps/1/agents/free/0",
                "a prompt"
            ),
            (
                "/documents/7/spec/steps/1/output", "json",
                "/documents/7/spec/steps/1/agents/free/0", "must say \"JSON\""
            ),
            (
                "/documents/7/spec/steps/0/output", "json", "/documents/7/spec/steps/0/output",
                "only chat agents"
            ),
            (
                "/documents/7/spec/steps/0/output", "yaml", "/documents/7/spec/steps/0/output",
                "one of"
            ),
            (
                "/documents/7/spec/steps/0/resultSchema/pattern", "x",
                "/documents/7/spec/steps/0/resultSchema/pattern", "unknown field"
            ),
            (
                "/documents/7/spec/steps/0/resultSchema",
                ["type": "object", "additionalProperties": false, "properties": ["score": [:]]],
                "/documents/7/spec/steps/1/input/mood", "declares no /label"
            ),
        ] as [(String, JSONValue?, String, String)])
    func reportsOneWrongPlace(
        change: String, value: JSONValue?, path: String, word: String
    ) throws {
        let problems = PolicyFixture.problems(try PolicyFixture.documents(change, value))
        #expect(
            problems.contains { $0.path == path && $0.message.contains(word) },
            "\(problems)")
    }

    @Test func reportsEverythingAtOnce() throws {
        var documents = try PolicyFixture.documents("/documents/0/spec/timeouts/connect", "soon")
        documents.append("no object")
        documents.append(["apiVersion": "weir.mesh/v1"])
        let paths = PolicyFixture.problems(documents).map(\.path)
        for path in [
            "/documents/0/spec/timeouts/connect", "/documents/8", "/documents/9/kind",
            "/documents/9/metadata", "/documents/9/spec",
        ] {
            #expect(paths.contains(path))
        }
    }

    @Test func boundsItsOwnReport() {
        let wrong = [JSONValue](repeating: 1, count: 4_000)
        #expect(PolicyFixture.problems(wrong).count == PolicyLimits.problemsMax + 1)
        let many = [JSONValue](repeating: 1, count: PolicyLimits.documentsMax + 1)
        #expect(PolicyFixture.problems(many).count == 1)
    }

    @Test(
        arguments: [
            ("250ms", 250), ("30s", 30_000), ("5m", 300_000), ("1h", 3_600_000), ("0s", 0),
            ("", nil), ("s", nil), ("1.5s", nil), ("-1s", nil), ("+1s", nil), ("5", nil),
            ("9223372036854775807h", nil), ("1S", nil), ("１s", nil),
        ] as [(String, Int64?)])
    func durations(text: String, milliseconds: Int64?) {
        #expect(DurationText.milliseconds(text) == milliseconds)
    }
}
