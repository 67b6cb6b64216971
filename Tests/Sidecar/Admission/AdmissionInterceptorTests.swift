import Glibc
import Testing
import WeirCore
import WeirLedger
import WeirMeshProtocol
import WeirPolicy

@testable import SidecarCore

@Suite struct AdmissionInterceptorTests {
    @Test func aDelegationPaysForWhatWasUsed() throws {
        let upstream = try TestUpstream { _ in okay(chatAnswer) }
        let fixture = try AdmissionFixture(upstream.address, credential: "Bearer key")
        let client = fixture.proxy.client()
        client.send(
            chatRequest(
                fixture.delegation(child: 1)
                    + "Authorization: Bearer mine\r\nAccept-Encoding: gzip\r\nweir-x: 1\r\n"))
        let response = try #require(client.readResponse())
        #expect(response.status == 200 && response.text == chatAnswer)
        #expect(response["weir-decision"] == "admitted")
        #expect(response["weir-agent"] == "llama" && response["weir-model"] == "llama-2")
        #expect(response["weir-policy-version"] == "7")
        #expect(
            response.all("weir-request-id") == ["req_\(Identifier(high: 3, low: 4))"],
            "the request's identity comes with the delegation")
        let settlement = try #require(AdmissionFixture.settlement(response))
        #expect(settlement.consumed == NanoUSD(12 + 300))
        #expect(settlement.isFinal && settlement.source == .reported)

        let seen = try #require(upstream.lastRequest)
        #expect(seen.all("authorization") == ["Bearer key"])
        #expect(seen.all("accept-encoding") == ["identity"])
        #expect(seen["weir-delegation"] == nil && seen["weir-x"] == nil)
        let body = try JSON.parse(seen.body)
        #expect(body["model"] == "llama-2" && body["max_tokens"] == 50)

        let record = try #require(fixture.waitForRecords(1).first)
        #expect(record.cost == NanoUSD(312) && record.reserved == NanoUSD(10_000))
        #expect(record.paidBy.child == 1 && record.status == 200)
        #expect(record.policyNumber == 7 && record.tokens.output == 30)
        #expect(!fixture.hasUnsaidFinal.isSet)
    }

    /// Who counts tokens by the minute is told them; nobody else is.
    @Test(arguments: [("free", nil), ("counted", 42)] as [(String, Int64?)])
    func aSettlementSaysTheTokensWhereTheTierCountsThem(tier: String, tokens: Int64?) throws {
        let upstream = try TestUpstream { _ in okay(chatAnswer) }
        let fixture = try AdmissionFixture(upstream.address)
        let client = fixture.proxy.client()
        client.send(chatRequest(fixture.delegation(child: 1, tier: tier)))
        let answered = try #require(client.readResponse())
        #expect(try #require(AdmissionFixture.settlement(answered)).tokens == tokens)
        // Nothing was sent: then none were used.
        client.send(chatRequest(fixture.delegation(child: 2, amount: 1, tier: tier)))
        let refused = try #require(client.readResponse())
        #expect(refused.status == 402)
        #expect(
            try #require(AdmissionFixture.settlement(refused)).tokens == tokens.map { _ in 0 })
    }

    @Test func observingSaysWhatWouldHaveBeenRefusedAndRefusesNothing() throws {
        let upstream = try TestUpstream { _ in okay(chatAnswer) }
        let fixture = try AdmissionFixture(
            upstream.address,
            agent: AdmissionFixture.openAI {
                $0.observe = true
                $0.rateLimit = .init(requestsPerSecond: 0.001, burst: 1)
            })
        let client = fixture.proxy.client()
        var decisions: [String?] = []
        var observed: [Bool] = []
        for fields in [
            fixture.delegation(child: 1), fixture.delegation(child: 2),
            fixture.delegation(child: 3, observed: .budgetExhausted),
        ] {
            client.send(chatRequest(fields))
            let response = try #require(client.readResponse())
            #expect(response.status == 200)
            decisions.append(response["weir-decision"])
            let settlement = try #require(AdmissionFixture.settlement(response))
            #expect(settlement.consumed == NanoUSD(312))
            observed.append(settlement.isObserved)
        }
        #expect(
            decisions == ["admitted", "observed:rate_limited", "observed:rate_limited"])
        #expect(observed == [false, true, true])
        let records = fixture.waitForRecords(3)
        #expect(records.map(\.reason) == [.admitted, .rateLimited, .rateLimited])
        #expect(records.map { $0.flags.contains(.observed) } == [false, true, true])
        #expect(records.allSatisfy { $0.cost == NanoUSD(312) })
        let text = String(decoding: fixture.metrics.registry.exposition(), as: UTF8.self)
        let line = #"weir_observed_total{agent="llama",tier="free",reason="rate_limited"} 2"#
        #expect(text.contains(line))
        // Access is no limit: observing does not waive it.
        client.send(chatRequest(fixture.delegation(child: 4, tier: "none")))
        #expect(client.readResponse()?["weir-decision"] == "agent_not_allowed")
    }

    @Test func aRecordSaysWhatTheGatewayObserved() throws {
        let upstream = try TestUpstream { _ in okay(chatAnswer) }
        let fixture = try AdmissionFixture(upstream.address)
        let client = fixture.proxy.client()
        client.send(chatRequest(fixture.delegation(child: 1, observed: .budgetExhausted)))
        #expect(client.readResponse()?["weir-decision"] == "observed:budget_exhausted")
        let record = try #require(fixture.waitForRecords(1).first)
        #expect(record.reason == .budgetExhausted && record.flags.contains(.observed))
    }

    @Test func eachDelegationIsAcceptedOnce() throws {
        let upstream = try TestUpstream { _ in okay(chatAnswer) }
        let fixture = try AdmissionFixture(upstream.address)
        let client = fixture.proxy.client()
        let twice = fixture.delegation(child: 1)
        var statuses: [Int] = []
        for fields in [
            twice, twice, "", fixture.delegation(child: 2, key: [1, 2]),
            fixture.delegation(child: 3, path: "/v1/embeddings"),
        ] {
            client.send(chatRequest(fields))
            statuses.append(client.readResponse()?.status ?? 0)
        }
        #expect(statuses == [200, 403, 401, 403, 403])
        #expect(upstream.requestCount == 1)
        // The last one was genuine: used up, and settled at nothing.
        #expect(fixture.waitForRecords(2).map(\.paidBy.child) == [1, 3])
        #expect(fixture.records.last?.cost == .zero)
    }

    @Test func whatADelegationDoesNotCoverIsRefused() throws {
        let upstream = try TestUpstream { _ in okay(chatAnswer) }
        let fixture = try AdmissionFixture(upstream.address)
        let client = fixture.proxy.client()
        client.send(chatRequest(fixture.delegation(child: 1, amount: 100)))
        let response = try #require(client.readResponse())
        #expect(response.status == 402 && response["weir-decision"] == "budget_exhausted")
        #expect(response["x-should-retry"] == "false")
        let error = try JSON.parse(response.body)["error"]
        #expect(error?["code"] == "budget_exhausted")
        let settlement = try #require(AdmissionFixture.settlement(response))
        #expect(settlement.consumed == .zero && settlement.isFinal && settlement.source == .none)
        #expect(upstream.requestCount == 0)
        let record = try #require(fixture.waitForRecords(1).first)
        #expect(record.cost == .zero && record.reason == .budgetExhausted)
    }

    @Test(arguments: [
        (#"{"messages":[],"background":true}"#, 403, "unmetered_path"),
        (#"{"messages":[],"n":1,"n":2}"#, 400, "duplicate_key"), ("{", 400, "malformed"),
        (#"{"messages":[],"max_tokens":"x"}"#, 422, "invalid"),
        (String(repeating: " ", count: 5_000), 413, "too_large"),
    ])
    func requestsWithoutABoundAreRefused(_ body: String, _ status: Int, _ reason: String) throws {
        let upstream = try TestUpstream { _ in okay(chatAnswer) }
        let agent = AdmissionFixture.openAI { $0.requestBodyBytesMax = 4_096 }
        let fixture = try AdmissionFixture(upstream.address, agent: agent)
        let client = fixture.proxy.client()
        client.send(chatRequest(fixture.delegation(child: 1), body))
        let response = try #require(client.readResponse())
        #expect(response.status == status && response["weir-decision"] == reason)
        #expect(AdmissionFixture.settlement(response)?.consumed == .zero)
        #expect(upstream.requestCount == 0)
        #expect(fixture.waitForRecords(1).first?.reason == Reason(name: reason))
    }

    @Test func aTierWithoutTheAgentIsRefused() throws {
        let upstream = try TestUpstream { _ in okay(chatAnswer) }
        let fixture = try AdmissionFixture(upstream.address)
        let client = fixture.proxy.client()
        client.send(chatRequest(fixture.delegation(child: 1, tier: "none")))
        #expect(client.readResponse()?["weir-decision"] == "agent_not_allowed")
        client.send(chatRequest(fixture.delegation(child: 2, milliseconds: 0)))
        #expect(client.readResponse()?.status == 504)
    }

    /// The parent gets the money back only from somebody who knows that nothing can be spent.
    @Test func refusedDelegationsAreSettledAtNothing() throws {
        let upstream = try TestUpstream { _ in okay(chatAnswer) }
        let fixture = try AdmissionFixture(upstream.address)
        let client = fixture.proxy.client()
        for (fields, status) in [
            (fixture.delegation(child: 1, milliseconds: 0), 504),
            (fixture.delegation(child: 2, path: "/v1/embeddings"), 403),
        ] {
            client.send(chatRequest(fields))
            let response = try #require(client.readResponse())
            let settlement = try #require(AdmissionFixture.settlement(response))
            #expect(response.status == status)
            #expect(settlement.isFinal && settlement.consumed == .zero)
        }
        for fields in [
            // Used up by the refusal, not ours, not proven.
            fixture.delegation(child: 1),
            fixture.delegation(child: 3, audience: Incarnation(11)),
            fixture.delegation(child: 4, key: [1, 2]),
        ] {
            client.send(chatRequest(fields))
            let response = try #require(client.readResponse())
            #expect(response.status == 403)
            #expect(response["weir-settlement"] == nil && response.trailers.isEmpty)
        }
        #expect(upstream.requestCount == 0)
        #expect(fixture.waitForRecords(2).map(\.cost) == [.zero, .zero])
    }

    @Test func streamsAreMeteredAsTheyPass() throws {
        let upstream = try TestUpstream { _, socket in
            _ = socket.readRequest()
            socket.send(
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
                    + "Transfer-Encoding: chunked\r\n\r\n")
            let events = [
                #"data: {"choices":[{"delta":{"content":"Hi"}}],"usage":null}"# + "\n\n",
                #"data: {"choices":[],"usa"#,
                #"ge":{"prompt_tokens":5,"completion_tokens":7}}"# + "\n\ndata: [DONE]\n\n",
            ]
            for event in events {
                socket.send("\(String(event.utf8.count, radix: 16))\r\n\(event)\r\n")
            }
            socket.send("0\r\n\r\n")
        }
        let fixture = try AdmissionFixture(upstream.address)
        let client = fixture.proxy.client()
        let body = #"{"stream":true,"messages":[{"role":"user","content":"x"}]}"#
        client.send(chatRequest(fixture.delegation(child: 1), body))
        let response = try #require(client.readResponse())
        #expect(response.isWhole && response.text.hasSuffix("data: [DONE]\n\n"))
        #expect(AdmissionFixture.settlement(response)?.consumed == NanoUSD(5 + 70))
        let record = try #require(fixture.waitForRecords(1).first)
        #expect(record.flags == .streamed && record.source == .reported)
    }

    @Test func aDeathInMidStreamCostsTheWorstCase() throws {
        let upstream = try TestUpstream { _, socket in
            _ = socket.readRequest()
            socket.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        }
        let fixture = try AdmissionFixture(upstream.address)
        let client = fixture.proxy.client()
        client.send(chatRequest(fixture.delegation(child: 1)))
        let response = try #require(client.readResponse())
        #expect(!response.isWhole)
        let record = try #require(fixture.waitForRecords(1).first)
        #expect(record.source == .ceiling && record.reason == .upstreamError)
        let messages = #"[{"role":"user","content":"Hello"}]"#
        let worst = Int64(messages.utf8.count) + WorstCase.templateTokens + 500
        #expect(record.cost == NanoUSD(worst))
        #expect(record.tokens == .init())
    }

    /// What an agent refuses is free only where its policy says so, and only by a status that says
    /// that nothing was done.
    @Test(
        arguments: [
            (AgentPolicy.WhenAgentRefuses.free, 429, "{}", 0), (.free, 401, "{}", 0),
            (.free, 503, "{}", 0), (.free, 400, "", 0), (.free, 500, "{}", nil),
            (.free, 502, "{}", nil), (.free, 504, "{}", nil), (.charge, 429, "{}", nil),
            (.charge, 401, "{}", nil),
            // Usage is work, whatever the status says.
            (.free, 429, chatAnswer, 12 + 300), (.free, 200, "{}", nil),
        ] as [(AgentPolicy.WhenAgentRefuses, Int, String, Int64?)])
    func whatARefusalCosts(
        policy: AgentPolicy.WhenAgentRefuses, status: Int, body: String, cost: Int64?
    ) throws {
        let upstream = try TestUpstream { _ in
            "HTTP/1.1 \(status) Status\r\nContent-Type: application/json\r\n"
                + "Content-Length: \(body.utf8.count)\r\n\r\n\(body)"
        }
        let agent = AdmissionFixture.openAI { $0.whenAgentRefuses = policy }
        let fixture = try AdmissionFixture(upstream.address, agent: agent)
        let client = fixture.proxy.client()
        client.send(chatRequest(fixture.delegation(child: 1)))
        let response = try #require(client.readResponse())
        #expect(response.status == status)
        let record = try #require(fixture.waitForRecords(1).first)
        let settlement = try #require(AdmissionFixture.settlement(response))
        #expect(settlement.consumed == record.cost && settlement.isFinal)
        if let cost {
            #expect(record.cost == NanoUSD(cost))
            #expect(record.source == (cost == 0 ? .none : .reported))
        } else {
            #expect(record.cost > NanoUSD(500))
            #expect(record.source == .ceiling)
        }
    }

    @Test func nothingIsDueWhereNothingWasSent() throws {
        let upstream = try TestUpstream { _ in nil }
        let address = upstream.address
        upstream.close()
        let agent = AdmissionFixture.openAI { $0.breaker.consecutiveFailures = 2 }
        let fixture = try AdmissionFixture(address, agent: agent)
        let client = fixture.proxy.client()
        var decisions: [String] = []
        for child in 1...3 {
            client.send(chatRequest(fixture.delegation(child: Int64(child))))
            let response = try #require(client.readResponse())
            decisions.append(response["weir-decision"] ?? "")
            #expect(AdmissionFixture.settlement(response)?.consumed == .zero)
        }
        #expect(decisions == ["upstream_error", "upstream_error", "circuit_open"])
        let endpoint = try #require(fixture.runtime.endpoints(nowNanoseconds: 0).first)
        #expect(endpoint.breaker == .open && endpoint.openedBy == .connect)
        #expect(fixture.waitForRecords(3).map(\.source) == [.none, .none, .none])
    }

    @Test func anotherEndpointIsTriedWhereNothingWasSent() throws {
        let dead = try TestUpstream { _ in nil }
        let address = dead.address
        dead.close()
        let alive = try TestUpstream { _ in okay(chatAnswer) }
        let fixture = try AdmissionFixture(address, alive.address)
        for child in 1...20 {
            let client = fixture.proxy.client()
            client.send(chatRequest(fixture.delegation(child: Int64(child))))
            let response = try #require(client.readResponse())
            #expect(response.status == 200 && response.text == chatAnswer)
        }
        let statuses = fixture.runtime.endpoints(nowNanoseconds: 0)
        #expect(statuses.allSatisfy { $0.outstanding == 0 })
        let failures = try #require(statuses.first).failures[
            CircuitBreaker.Failure.connect.rawValue]
        #expect((1...3).contains(failures), "it is avoided and not asked each time")
        let metrics = String(decoding: fixture.metrics.registry.exposition(), as: UTF8.self)
        #expect(metrics.contains("weir_retries_total{agent=\"llama\"} \(failures)\n"), "\(metrics)")
        // Each request has one record, wherever it went.
        #expect(fixture.waitForRecords(20).allSatisfy { $0.source == .reported })
    }

    @Test func theAgentIsToldHowLongItHas() throws {
        let upstream = try TestUpstream { _ in okay(chatAnswer) }
        let fixture = try AdmissionFixture(upstream.address)
        let client = fixture.proxy.client()
        client.send(
            chatRequest(
                fixture.delegation(child: 1, milliseconds: 5_000)
                    + "Request-Timeout-Ms: 999999\r\n"))
        #expect(client.readResponse()?.status == 200)
        let told = try #require(upstream.lastRequest?["request-timeout-ms"].flatMap { Int($0) })
        #expect((4_000...5_000).contains(told), "\(told)")
    }

    @Test func whenTheCallerLeavesTheAnswerIsReadToItsEnd() throws {
        let gone = Signal()
        let upstream = try TestUpstream { _, socket in
            _ = socket.readRequest()
            socket.send("HTTP/1.1 200 OK\r\nContent-Length: \(chatAnswer.utf8.count)\r\n\r\n")
            socket.send(String(chatAnswer.prefix(10)))
            _ = gone.wait()
            socket.send(String(chatAnswer.dropFirst(10)))
            _ = socket.readRequest()
        }
        let fixture = try AdmissionFixture(upstream.address)
        let client = fixture.proxy.client()
        client.send(chatRequest(fixture.delegation(child: 1)))
        #expect(client.readHead()?.status == 200)
        client.reset()
        #expect(eventually { fixture.proxy.onLoop { $0.connectionCount } == 0 })
        gone.set()
        let record = try #require(fixture.waitForRecords(1).first)
        #expect(record.cost == NanoUSD(312) && record.source == .reported)
        #expect(record.reason == .cancelled)
        #expect(fixture.hasUnsaidFinal.wait(), "the parent hears it from a report")
    }

    @Test func theRateLimitIsExactAndExplained() throws {
        let upstream = try TestUpstream { _ in okay(chatAnswer) }
        let agent = AdmissionFixture.openAI {
            $0.rateLimit = .init(requestsPerSecond: 0.001, burst: 3)
        }
        let fixture = try AdmissionFixture(upstream.address, agent: agent)
        let client = fixture.proxy.client()
        for child in 1...3 {
            client.send(chatRequest(fixture.delegation(child: Int64(child))))
            #expect(client.readResponse()?.status == 200)
        }
        client.send(chatRequest(fixture.delegation(child: 4)))
        let response = try #require(client.readResponse())
        #expect(response.status == 429 && response["ratelimit-policy"] == "\"agent\";q=3;w=3000")
        #expect(response["retry-after"].flatMap { Int($0) } ?? 0 > 900)
        #expect(AdmissionFixture.settlement(response)?.consumed == .zero)
    }

    @Test func whoWaitsGetsTheNextPlace() throws {
        let release = Signal()
        let upstream = try TestUpstream { _ in
            _ = release.wait()
            return okay(chatAnswer)
        }
        let agent = AdmissionFixture.openAI {
            var limit = AgentPolicy.Concurrency(requestsMax: 1)
            limit.queueMax = 1
            limit.queueMilliseconds = 8_000
            $0.concurrency = limit
        }
        let fixture = try AdmissionFixture(upstream.address, agent: agent)
        let clients = (0..<3).map { _ in fixture.proxy.client() }
        clients[0].send(chatRequest(fixture.delegation(child: 1)))
        #expect(eventually { fixture.runtime.levels.inFlight == 1 })
        clients[1].send(chatRequest(fixture.delegation(child: 2)))
        #expect(eventually { fixture.runtime.levels.waiting == 1 })
        clients[2].send(chatRequest(fixture.delegation(child: 3)))
        #expect(clients[2].readResponse()?["weir-decision"] == "overloaded")
        release.set()
        #expect(clients[0].readResponse()?.status == 200)
        #expect(clients[1].readResponse()?.status == 200)
        #expect(eventually { fixture.runtime.levels.inFlight == 0 })
        #expect(fixture.waitForRecords(3).count == 3)
    }

    @Test func theQueueForgetsWhoLeavesAndWhoWaitsTooLong() throws {
        let release = Signal()
        let upstream = try TestUpstream { _ in
            _ = release.wait()
            return okay(chatAnswer)
        }
        let agent = AdmissionFixture.openAI {
            var limit = AgentPolicy.Concurrency(requestsMax: 1)
            limit.queueMax = 5
            limit.queueMilliseconds = 2_000
            $0.concurrency = limit
        }
        let fixture = try AdmissionFixture(upstream.address, agent: agent)
        let first = fixture.proxy.client()
        first.send(chatRequest(fixture.delegation(child: 1)))
        #expect(eventually { fixture.runtime.levels.inFlight == 1 })
        let late = fixture.proxy.client()
        late.send(chatRequest(fixture.delegation(child: 2)))
        let leaving = fixture.proxy.client()
        leaving.send(chatRequest(fixture.delegation(child: 3)))
        #expect(eventually { fixture.runtime.levels.waiting == 2 })
        leaving.reset()
        #expect(late.readResponse()?["weir-decision"] == "overloaded")
        #expect(eventually { fixture.runtime.levels.waiting == 0 })
        release.set()
        #expect(first.readResponse()?.status == 200)
        #expect(eventually { fixture.runtime.levels.inFlight == 0 })
        #expect(fixture.waitForRecords(3).count == 3)
    }

    @Test func aNewPolicyIsInForceAtOnce() throws {
        let upstream = try TestUpstream { _ in okay(chatAnswer) }
        let fixture = try AdmissionFixture(upstream.address)
        let client = fixture.proxy.client()
        client.send(chatRequest(fixture.delegation(child: 1)))
        #expect(client.readResponse()?["weir-policy-version"] == "7")
        let dearer = AdmissionFixture.price { $0.tokens.output = NanoUSD(20_000_000) }
        fixture.change(
            AdmissionFixture.openAI { $0.outputTokensMax = 40 }, dearer, number: 8)
        client.send(chatRequest(fixture.delegation(child: 2)))
        let response = try #require(client.readResponse())
        #expect(response["weir-policy-version"] == "8")
        #expect(AdmissionFixture.settlement(response)?.consumed == NanoUSD(12 + 600))
        let body = try JSON.parse(try #require(upstream.lastRequest).body)
        #expect(body["max_tokens"] == 40)
    }

    /// LEDGER: a fixed price and a budget for exactly N serve exactly N.
    @Test func anAllowanceIsSpentToTheLastNanoDollar() throws {
        let upstream = try TestUpstream { _ in okay(#"{"label":"positive"}"#) }
        var agent = AgentPolicy(
            name: "finbert", wireProtocol: .huggingface, path: "/models/finbert",
            models: [.init(id: "llama-2", aliases: [])])
        agent.breaker.consecutiveFailures = 100
        var price = ModelPrice(model: "llama-2")
        price.perRequest = NanoUSD(120_000)
        let fixture = try AdmissionFixture(
            upstream.address, allowance: NanoUSD(120_000 * 20 + 119_999), agent: agent,
            price: price)
        let client = fixture.proxy.client()
        var statuses: [Int] = []
        for _ in 0..<25 {
            client.send(post("/models/finbert", "{}"))
            let response = try #require(client.readResponse())
            statuses.append(response.status)
            if response.status == 402 {
                let problem = try JSON.parse(response.body)
                #expect(problem["account"] == "usd/mesh/-/local")
            }
        }
        #expect(statuses == Array(repeating: 200, count: 20) + Array(repeating: 402, count: 5))
        let records = fixture.waitForRecords(20)
        #expect(records.reduce(NanoUSD.zero) { $0 + $1.cost } == NanoUSD(2_400_000))
        #expect(upstream.requestCount == 20)
        let text = String(decoding: fixture.metrics.registry.exposition(), as: UTF8.self)
        #expect(
            text.contains(
                #"cost_usd_total{agent="finbert",model="llama-2",tier="",source="reported"} 0.0024"#
            ))
        #expect(text.contains(#"weir_requests_total{decision="budget_exhausted"} 5"#))
    }
}
