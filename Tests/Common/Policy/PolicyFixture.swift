import Testing
import WeirCore

@testable import WeirPolicy

/// A small valid policy that uses every kind, and ways to break it in one place.
enum PolicyFixture {
    static let text = """
        [
          {"apiVersion": "weir.mesh/v1", "kind": "Agent", "metadata": {"name": "mood"},
           "spec": {"protocol": "huggingface", "path": "/models/mood",
                    "models": [{"id": "org/mood", "aliases": ["m1"]}],
                    "timeouts": {"connect": "250ms", "total": "10s"},
                    "rateLimit": {"requestsPerSecond": 2.5, "burst": 7, "scope": "instance"},
                    "concurrency": {"requestsMax": 4, "queueMax": 8, "queueTimeout": "2s"},
                    "breaker": {"consecutiveFailures": 3, "open": "1s", "openMax": "1m"},
                    "healthCheck": {"path": "/health", "interval": "2s"},
                    "retry": {"budgetPercent": 5, "attemptsMax": 2, "afterSend": true},
                    "versions": [{"name": "v1", "weight": 9}, {"name": "v2", "weight": 1}],
                    "credential": "MOOD_KEY"}},
          {"apiVersion": "weir.mesh/v1", "kind": "Agent", "metadata": {"name": "writer"},
           "spec": {"protocol": "openai", "path": "/v1/chat/completions",
                    "models": [{"id": "big", "aliases": ["b"]}], "fallbacks": ["scribe"],
                    "outputTokensMax": 100, "prompt": {"user": "{{text}} is {{mood}}"}}},
          {"apiVersion": "weir.mesh/v1", "kind": "Agent", "metadata": {"name": "scribe"},
           "spec": {"protocol": "openai", "path": "/v1/chat/completions",
                    "models": [{"id": "small"}], "prompt": {"user": "{{text}}"}}},
          {"apiVersion": "weir.mesh/v1", "kind": "Tier", "metadata": {"name": "free"},
           "spec": {"monthlyBudget": "5", "dailyRequests": 100, "requestsPerMinute": 20,
                    "tokensPerMinute": 9000, "agents": ["mood", "scribe"],
                    "whenControlPlaneIsLost": {"allowUpTo": "0.5"}, "maxLease": "0.25"}},
          {"apiVersion": "weir.mesh/v1", "kind": "Tier", "metadata": {"name": "gold"},
           "spec": {"monthlyBudget": "100", "agents": ["mood", "writer", "scribe"],
                    "downgrade": {"preferAtPercent": 50, "requireAtPercent": 60}}},
          {"apiVersion": "weir.mesh/v1", "kind": "PriceTable", "metadata": {"name": "list"},
           "spec": {"dated": "2026-11-01", "prices": [
             {"model": "org/mood", "perRequest": "0.000120"},
             {"model": "big", "tokens": {"input": "10", "output": "30"},
              "steps": [{"inputTokensAbove": 1000, "tokens": {"input": "20", "output": "60"}}]},
             {"model": "small", "tokens": {"input": "0.05", "output": "0.25"}},
             {"model": "unused", "perSecond": "1"}]}},
          {"apiVersion": "weir.mesh/v1", "kind": "Budget", "metadata": {"name": "acme"},
           "spec": {"scope": "tenant", "id": "acme", "monthlyLimit": "50"}},
          {"apiVersion": "weir.mesh/v1", "kind": "RequestType", "metadata": {"name": "news"},
           "spec": {"timeout": "20s",
             "inputSchema": {"type": "object", "required": ["text"],
               "properties": {"text": {"type": "string"}, "tags": {"type": "array"}}},
             "steps": [
               {"name": "mood", "agents": {"free": ["mood"], "gold": ["mood"]},
                "input": {"text": "/data/text"}},
               {"name": "prose", "agents": {"free": ["scribe"], "gold": ["writer", "scribe"]},
                "input": {"text": "/data/text", "mood": "/steps/mood/result/label",
                          "tags": {"from": "/data/tags", "optional": true}},
                "timeout": "5s"}]}}
        ]
        """

    static func documents() throws -> [JSONValue] {
        try #require(try JSON.parse(text).array)
    }

    /// The fixture with one place changed; `nil` removes it.
    static func documents(_ path: String, _ value: JSONValue?) throws -> [JSONValue] {
        let pointer = try #require(JSONPointer(path))
        #expect(pointer.tokens.first == "documents")
        let changed = try replace(
            .array(try documents()), pointer.tokens.dropFirst()[...], value)
        return try #require(changed.array)
    }

    private static func replace(
        _ root: JSONValue, _ tokens: ArraySlice<String>, _ value: JSONValue?
    ) throws -> JSONValue {
        let token = try #require(tokens.first)
        let rest = tokens.dropFirst()
        switch root {
        case .object(var object):
            object[token] =
                rest.isEmpty ? value : try replace(object[token] ?? [:], rest, value)
            return .object(object)
        case .array(var array):
            if token == "-" {
                array.append(try #require(value))
                return .array(array)
            }
            let index = try #require(Int(token))
            if rest.isEmpty, value == nil {
                array.remove(at: index)
            } else {
                array[index] =
                    rest.isEmpty ? try #require(value) : try replace(array[index], rest, value)
            }
            return .array(array)
        case .null, .bool, .number, .string:
            Issue.record("no place for \(token)")
            return root
        }
    }

    static func problems(_ documents: [JSONValue]) -> [Problem] {
        do throws(Problems) {
            _ = try PolicyReader.read(documents)
            return []
        } catch {
            return error.list
        }
    }
}
