import Testing
import WeirCore
import WeirMeshProtocol
import WeirPolicy

@testable import SidecarCore

private func place(_ pointer: String?, header: String? = nil) -> UsagePlaces.Place {
    UsagePlaces.Place(header: header, pointer: pointer.flatMap { JSONPointer($0) })
}

/// What is reported, while the tree is there: scanners only look at it.
private func reported(
    _ tree: UsageTree, _ body: String, fields: [(UsageCounts.Counter, String)] = [],
    cuts: [Int] = [], isEventStream: Bool = false
) -> AttemptRecord.Tokens? {
    var meter = UsageMeter()
    meter.begin(.json, countsTokens: true, isEventStream: isEventStream, tree: tree)
    for (counter, field) in fields { meter.note(counter, field: field) }
    let bytes = Array(body.utf8)
    var start = 0
    for end in cuts + [bytes.count] {
        bytes[start..<end].withUnsafeBytes { meter.feed($0) }
        start = end
    }
    meter.finish()
    return withExtendedLifetime(tree) { meter.reported }
}

/// LEDGER, "Worst case of an attempt", for agents whose policy says where usage stands.
@Suite struct UsageTreeTests {
    private static let places: UsagePlaces = {
        var places = UsagePlaces()
        places.input = place("/meta/tokens/in")
        places.cachedInput = place("/meta/tokens/cache~1read")
        places.output = place("/meta/out")
        places.reasoning = place("/thought", header: "x-thought")
        return places
    }()
    private static let body = #"""
        {"thought":4,"in":99,
         "meta":{"x":[{"out":5}],"tokens":{"in":20,"cache\u002Fread":7},"out":9},
         "tokens":{"in":98}}
        """#

    @Test func countsAreReadWhereThePolicySaysWhereverTheBodyIsCut() {
        let tree = UsageTree(Self.places)
        for cut in 0...Self.body.utf8.count {
            let found = reported(tree, Self.body, cuts: [cut])
            #expect(found?.input == 20 && found?.cachedInput == 7)
            #expect(found?.output == 9 && found?.reasoning == 4)
        }
    }

    @Test(arguments: [
        #"{"meta":{"tokens":{"in":1},"out":1,"out":2}}"#,
        #"{"meta":{"tokens":{"in":1}}}"#, #"{"meta":{"tokens":{"in":1},"out":"9"}}"#,
        #"{"meta":{"tokens":{"in":-1},"out":9}}"#, #"{"meta":[{"tokens":{"in":1},"out":9}]}"#,
        #"{"meta":{"tokens":{"in":1},"out":9}"#, #"{"usage":{"prompt_tokens":1}}"#, "", "no JSON",
        #"[{"meta":{"tokens":{"in":1},"out":9}}]"#,
        #"{"meta":{"tokens":{"in":1,"cache/read":2},"out":9}}"#,
    ])
    func whatCannotBeTrustedIsNotUsed(_ body: String) {
        #expect(reported(UsageTree(Self.places), body) == nil)
    }

    @Test func headerFieldsSayIt() {
        let tree = UsageTree(.textGeneration)
        let said: [(UsageCounts.Counter, String)] = [(.prompt, "12"), (.output, "30")]
        for body in [#"[{"generated_text":"x"}]"#, "no JSON", ""] {
            let found = reported(tree, body, fields: said)
            #expect(found?.input == 12 && found?.output == 30)
        }
        for bad in ["", "-1", "1.0", "+1", "4294967296", "0x1", " 1"] {
            let found = reported(tree, "{}", fields: [(.prompt, "12"), (.output, bad)])
            #expect(found == nil, "\(bad)")
        }
        #expect(reported(tree, "{}", fields: [(.prompt, "12")]) == nil)
    }

    @Test func theLastEventOfTextGenerationSaysIt() {
        let stream =
            #"data:{"token":{"id":1},"generated_text":null,"details":null}"# + "\n\n"
            + #"data:{"token":{"id":2},"generated_text":"ab","#
            + #""details":{"finish_reason":"length","generated_tokens":2,"input_length":5}}"#
            + "\n\n"
        for cut in 0...stream.utf8.count {
            let found = reported(
                UsageTree(.textGeneration), stream, cuts: [cut], isEventStream: true
            )
            #expect(found?.input == 5 && found?.output == 2)
        }
    }

    @Test func oneSideIsEnoughWhereThePolicyNamesOne() {
        var places = UsagePlaces()
        places.input = place("/n")
        #expect(reported(UsageTree(places), #"{"n":3}"#)?.input == 3)
        #expect(reported(UsageTree(places), "{}") == nil)
    }
}

@Suite struct PlacedBounderTests {
    private func bounder(
        _ wireProtocol: AgentPolicy.WireProtocol = .huggingface, limit: String? = nil,
        outputTokensMax: Int64? = nil
    ) -> WorstCase {
        var agent = AgentPolicy(
            name: "tgi", wireProtocol: wireProtocol, path: "/generate", models: [])
        agent.outputTokensMax = 100
        agent.outputLimit = limit.flatMap { JSONPointer($0) }
        var price = ModelPrice(model: "tgi")
        price.tokens.input = NanoUSD(1_000_000)
        price.tokens.output = NanoUSD(10_000_000)
        return WorstCase(
            agent: agent, prices: [price.model: price], outputTokensMax: outputTokensMax)
    }

    private func bound(_ body: String, _ bounder: WorstCase) throws(BoundRefusal) -> AttemptBound {
        try bounder.bound(method: "POST", path: "/generate", body: Array(body.utf8))
    }

    @Test func textGenerationIsLimitedWhereItSaysSo() throws {
        let none = try bound(#"{"inputs":"Hello"}"#, bounder())
        let body = try JSON.parse(try #require(none.body))
        #expect(body["parameters"]?["max_new_tokens"]?.int64 == 100)
        #expect(none.outputTokensMax == 100 && none.writtenOutputMax == 100)
        let more = #"{"inputs":["a","b"],"parameters":{"max_new_tokens":900,"best_of":3}}"#
        let lowered = try bound(more, bounder(outputTokensMax: 40))
        #expect(lowered.outputTokensMax == 240 && lowered.writtenOutputMax == 40)
        let fine = try bound(
            #"{"inputs":"a","parameters":{"max_new_tokens":7}}"#, bounder(outputTokensMax: 40))
        #expect(fine.outputTokensMax == 7 && fine.body == nil && fine.writtenOutputMax == nil)
    }

    /// Gateways bound first and sidecars bound what gateways wrote: both must find the same.
    @Test(arguments: [
        #"{"inputs":"Hello"}"#, #"{ "inputs" : "a", "parameters": {"max_new_tokens": 900}}"#,
        #"{"inputs":"a","parameters":null}"#, #"{"inputs":["a"],"parameters":{"seed":1}}"#,
    ])
    func boundingIsIdempotent(_ text: String) throws {
        let tier = bounder(outputTokensMax: 64)
        let first = try bound(text, tier)
        let second = try tier.bound(
            method: "POST", path: "/generate", body: try #require(first.body))
        #expect(second.body == nil && second.worstCase == first.worstCase)
    }

    @Test(arguments: [
        (#"{"inputs":"a","parameters":{"max_length":9}}"#, Reason.unmeteredPath),
        (#"{"inputs":"a","model":"b"}"#, .unmeteredPath),
        (#"{"inputs":"a","parameters":{"max_new_tokens":"9"}}"#, .invalid),
        (#"{"inputs":"a","parameters":{"max_new_tokens":0}}"#, .invalid),
        (#"{"inputs":"a","parameters":[1]}"#, .invalid),
        (#"{"inputs":"a","parameters":{"best_of":99999999999}}"#, .invalid),
        ("[]", .invalid), ("{", .malformed), (#"{"inputs":1,"inputs":2}"#, .duplicateKey),
    ])
    func wrongBodiesAreRefused(_ body: String, _ reason: Reason) {
        let failure = #expect(throws: BoundRefusal.self) { try bound(body, bounder()) }
        #expect(failure?.reason == reason)
    }

    @Test func anyAgentMaySayWhereItsLimitStands() throws {
        let rules = bounder(.json, limit: "/options/limit")
        let bound = try bound(#"{"text":"a","whatever":[1]}"#, rules)
        let body = try JSON.parse(try #require(bound.body))
        #expect(body["options"] == ["limit": 100] && bound.outputTokensMax == 100)
        #expect(throws: BoundRefusal.self) {
            try rules.bound(method: "GET", path: "/generate", body: [])
        }
        #expect(throws: BoundRefusal.self) { try self.bound("{}", bounder(.json)) }
    }
}
