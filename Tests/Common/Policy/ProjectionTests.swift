import Testing
import WeirCore

@testable import WeirPolicy

@Suite struct ProjectionTests {
    @Test func anAgentGetsOnlyWhatConcernsIt() throws {
        let documents = Policy.projection(of: try PolicyFixture.documents(), agent: "writer")
        let policy = try PolicyReader.read(documents)
        #expect(Set(policy.agents.keys) == ["writer"])
        #expect(policy.agents["writer"]?.fallbacks == [])
        #expect(Set(policy.prices.keys) == ["big"])
        #expect(policy.tiers["free"]?.agents == [])
        #expect(policy.tiers["gold"]?.agents == ["writer"])
        #expect(policy.requestTypes.isEmpty)
        #expect(policy.budgets.isEmpty)
    }

    @Test func everyAgentsProjectionIsClosed() throws {
        let documents = try PolicyFixture.documents()
        for name in try PolicyReader.read(documents).agents.keys {
            let policy = try PolicyReader.read(Policy.projection(of: documents, agent: name))
            #expect(policy.agents[name] != nil)
        }
        #expect(Policy.projection(of: documents, agent: "ghost").isEmpty)
    }

    @Test func gatewaysKeepAnswersAndSidecarsAreNotTold() throws {
        let documents = try PolicyFixture.documents(
            "/documents/0/spec/cache", ["ttl": "10m", "scope": "tenant", "bytesMax": 4_096])
        let kept = try PolicyReader.read(Policy.gatewayProjection(of: documents))
            .agents["mood"]?.cache
        #expect(kept?.ttlMilliseconds == 600_000 && kept?.scope == .tenant)
        #expect(kept?.bytesMax == 4_096 && kept?.entriesMax == 1_000)
        let sidecar = try PolicyReader.read(Policy.projection(of: documents, agent: "mood"))
        #expect(sidecar.agents["mood"] != nil && sidecar.agents["mood"]?.cache == nil)
    }

    @Test func aHealthWeightIsTheGatewaysBusiness() throws {
        var documents = try PolicyFixture.documents()
        for index in documents.indices where documents[index]["kind"] == "Agent" {
            guard var document = documents[index].object, var spec = document["spec"]?.object
            else { continue }
            spec["healthWeight"] = 0
            document["spec"] = .object(spec)
            documents[index] = .object(document)
        }
        let problems = #expect(throws: Problems.self) { try PolicyReader.read(documents) }
        #expect(problems?.list.map(\.path) == ["/documents/0/spec/healthWeight"])
        // All but one may be left out of the score, and no sidecar is told.
        documents = try PolicyFixture.documents()
        guard var first = documents[0].object, var spec = first["spec"]?.object else { return }
        let name = try #require(first["metadata"]?["name"]?.string)
        spec["healthWeight"] = 0
        first["spec"] = .object(spec)
        documents[0] = .object(first)
        let gateway = try PolicyReader.read(Policy.gatewayProjection(of: documents))
        #expect(gateway.agents[name]?.healthWeight == 0)
        #expect(
            Policy.projection(of: documents, agent: name)
                == Policy.projection(of: try PolicyFixture.documents(), agent: name))
    }

    @Test func theGatewayGetsPlansAndNoCredentials() throws {
        let documents = Policy.gatewayProjection(of: try PolicyFixture.documents())
        let policy = try PolicyReader.read(documents)
        let whole = try PolicyReader.read(try PolicyFixture.documents())
        #expect(policy.requestTypes == whole.requestTypes)
        #expect(policy.tiers == whole.tiers)
        #expect(policy.agents["mood"]?.credential == nil)
        #expect(policy.prices["unused"] == nil)
        #expect(!JSONValue.array(documents).text.contains("MOOD_KEY"))
    }

    @Test func whomAnAgentCallsIsTheGatewaysToKnow() throws {
        var documents = try PolicyFixture.documents()
        let index = try #require(documents.firstIndex { $0["metadata"]?["name"] == "mood" })
        var mood = try #require(documents[index].object)
        var spec = try #require(mood["spec"]?.object)
        spec["outbound"] = ["agents": ["writer"], "maxCostPerRequest": "0.05"]
        mood["spec"] = .object(spec)
        documents[index] = .object(mood)
        let gateway = try PolicyReader.read(Policy.gatewayProjection(of: documents))
        #expect(gateway.agents["mood"]?.outbound?.agents == ["writer"])
        let own = try PolicyReader.read(Policy.projection(of: documents, agent: "mood"))
        #expect(own.agents["mood"]?.outbound?.agents == [])
        #expect(own.agents["mood"]?.outbound?.maxCostPerRequest == NanoUSD(50_000_000))
    }

    @Test func aMeshThatObservesIsSaidToEveryMember() throws {
        let mesh: JSONValue = [
            "apiVersion": "weir.mesh/v1", "kind": "Mesh", "metadata": ["name": "production"],
            "spec": ["observe": true],
        ]
        let documents = try PolicyFixture.documents() + [mesh]
        let whole = try PolicyReader.read(documents)
        #expect(whole.mesh.observe && whole.observesAnyTier)
        let gateway = try PolicyReader.read(Policy.gatewayProjection(of: documents))
        #expect(gateway.tiers.values.allSatisfy { $0.observe })
        #expect(gateway.agents.values.allSatisfy { $0.observe })
        let agent = try PolicyReader.read(Policy.projection(of: documents, agent: "writer"))
        #expect(agent.agents["writer"]?.observe == true)
        #expect(try !PolicyReader.read(PolicyFixture.documents()).observesAnyTier)
    }

    @Test func thereIsOneMeshAndItsFieldsAreKnown() throws {
        func mesh(_ name: String, _ spec: JSONValue) -> JSONValue {
            [
                "apiVersion": "weir.mesh/v1", "kind": "Mesh", "metadata": ["name": .string(name)],
                "spec": spec,
            ]
        }
        do throws(Problems) {
            _ = try PolicyReader.read([
                mesh("a", ["observe": "yes", "watch": true]), mesh("b", [:]),
            ])
            Issue.record("accepted")
        } catch {
            #expect(
                error.list.map(\.path) == [
                    "/documents/0/spec/observe", "/documents/0/spec/watch", "/documents/1/kind",
                ])
        }
    }

    @Test func theOrderOfDocumentsDoesNotMatter() throws {
        let documents = try PolicyFixture.documents()
        let reversed = Array(documents.reversed())
        #expect(
            Policy.gatewayProjection(of: documents).map(\.text)
                == Policy.gatewayProjection(of: reversed).map(\.text))
        #expect(
            Policy.projection(of: documents, agent: "mood").map(\.text)
                == Policy.projection(of: reversed, agent: "mood").map(\.text))
    }

    @Test func aCompiledPolicySurvivesItsFile() throws {
        let version = PolicyVersion(epoch: 1, number: 17, hash: "ab")
        let compiled = CompiledPolicy(version: version, documents: try PolicyFixture.documents())
        let read = try CompiledPolicy(try JSON.parse(compiled.json.bytes))
        #expect(read == compiled)
    }

    @Test func aWrongCompiledFileNamesItsProblems() throws {
        do throws(Problems) {
            _ = try CompiledPolicy(["kind": "Policies", "version": ["epoch": -1], "x": 1])
            Issue.record("accepted")
        } catch {
            #expect(
                Set(error.list.map(\.path)).isSuperset(of: [
                    "/apiVersion", "/kind", "/version/epoch", "/version/number", "/version/hash",
                    "/documents", "/x",
                ]))
        }
    }
}
