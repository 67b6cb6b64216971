import Testing
import WeirCore
import WeirPolicy

@testable import SidecarGateway

@Suite struct PlanProgressTests {
    private func progress(
        _ type: String, _ data: JSONValue, tier: String = "gold"
    ) throws -> PlanProgress {
        let type = try #require(try GatewayFixture.policy().requestTypes[type])
        return PlanProgress(type: type, tier: tier, data: data)
    }

    private func names(_ starts: [PlanProgress.Start]) -> [String] { starts.map(\.step.name) }

    @Test func stepsFollowTheirDependencies() throws {
        var progress = try progress("news", ["text": "up"])
        let first = progress.takeReady()
        #expect(names(first) == ["mood"])
        #expect(first[0].inputs == ["text": "up"])
        let early = progress.takeReady()
        #expect(early.isEmpty)
        progress.stepEnded("mood", .ok(["label": "good"]))
        let second = progress.takeReady()
        #expect(names(second) == ["prose"])
        #expect(second[0].inputs == ["text": "up", "mood": "good"])
        progress.stepEnded("prose", .ok(["text": "x"]))
        #expect(progress.isOver)
        #expect(progress.isComplete)
    }

    @Test func readyStepsRunAtOnceAndOptionalInputsMayBeAbsent() throws {
        var progress = try progress("wide", ["text": "up", "positions": [1]])
        #expect(names(progress.takeReady()) == ["risk", "mood"])
        progress.stepEnded("risk", .ok(["level": "low"]))
        let waiting = progress.takeReady()
        #expect(waiting.isEmpty)
        progress.stepEnded("mood", .failed(.upstreamError))
        let summary = progress.takeReady()
        #expect(names(summary) == ["summary"])
        #expect(summary[0].inputs == ["text": ["level": "low"]])
        progress.stepEnded("summary", .ok("s"))
        #expect(progress.isOver)
        #expect(!progress.isComplete)
        #expect(progress.requiredStepsAreDone)
        #expect(progress.failedRequiredStep == nil)
    }

    @Test func whatTheCallerLeftOutIsNoFailure() throws {
        var progress = try progress("wide", ["positions": [1]])
        #expect(names(progress.takeReady()) == ["risk"])
        #expect(progress.ends["mood"] == .skipped(.inputAbsent("text")))
        progress.stepEnded("risk", .ok(["level": "low"]))
        #expect(names(progress.takeReady()) == ["summary"])
        progress.stepEnded("summary", .ok("s"))
        #expect(progress.isComplete)
    }

    /// A plan whose summary takes what there is.
    private func union(_ data: JSONValue) throws -> PlanProgress {
        var type = try #require(try GatewayFixture.policy().requestTypes["wide"])
        for index in type.steps.indices {
            type.steps[index].required = false
            type.steps[index].after = []
        }
        type.steps[2].input = try [
            "risk": "/steps/risk/result/level", "mood": "/steps/mood/result/label",
        ].mapValues {
            .init(pointer: try #require(JSONPointer($0)), isOptional: true)
        }
        return PlanProgress(type: type, tier: "gold", data: data)
    }

    @Test func stepsWhoseAgentsAreExcludedAreSkipped() throws {
        let type = try #require(try GatewayFixture.policy().requestTypes["wide"])
        var progress = PlanProgress(
            type: type, tier: "gold", data: ["text": "up", "positions": [1]], excluded: ["mood"])
        #expect(names(progress.takeReady()) == ["risk"])
        #expect(progress.ends["mood"] == .skipped(.excluded))
        progress.stepEnded("risk", .ok(["level": "low"]))
        #expect(names(progress.takeReady()) == ["summary"])
        progress.stepEnded("summary", .ok("s"))
        #expect(progress.isComplete)
    }

    @Test func aStepWithNothingToReadIsSkipped() throws {
        var failed = try union(["text": "up", "positions": [1]])
        _ = failed.takeReady()
        failed.stepEnded("risk", .failed(.upstreamError))
        failed.stepEnded("mood", .failed(.circuitOpen))
        let none = failed.takeReady()
        #expect(none.isEmpty)
        #expect(failed.ends["summary"] == .skipped(.dependency("mood")))
        #expect(failed.failureOfAll?.name == "risk")
        #expect(failed.failureOfAll?.reason == .upstreamError)
        #expect(!failed.hasResult)

        var partly = try union(["text": "up", "positions": [1]])
        _ = partly.takeReady()
        partly.stepEnded("risk", .failed(.upstreamError))
        partly.stepEnded("mood", .ok(["label": "good"]))
        #expect(partly.takeReady().first?.inputs == ["mood": "good"])
        #expect(partly.failureOfAll == nil)
        #expect(partly.hasResult)

        var absent = try union([:])
        let starts = absent.takeReady()
        #expect(starts.isEmpty)
        #expect(absent.ends["summary"] == .skipped(.inputAbsent("mood")))
        #expect(absent.isComplete)
    }

    @Test func nullIsAbsent() throws {
        var progress = try progress("wide", ["positions": .null])
        let starts = progress.takeReady()
        #expect(starts.isEmpty)
        #expect(progress.isOver)
        #expect(progress.ends["summary"] == .skipped(.inputAbsent("risk")))
    }

    @Test func aFailedRequiredStepSkipsWhatFollows() throws {
        var progress = try progress("news", ["text": "up"])
        _ = progress.takeReady()
        progress.stepEnded("mood", .failed(.circuitOpen))
        let starts = progress.takeReady()
        #expect(starts.isEmpty)
        #expect(progress.ends["prose"] == .skipped(.dependency("mood")))
        #expect(progress.failedRequiredStep?.name == "mood")
        #expect(progress.failedRequiredStep?.reason == .circuitOpen)
    }

    @Test func aTierWithoutStepsSkipsThem() throws {
        var progress = try progress("news", ["text": "up"], tier: "none")
        let starts = progress.takeReady()
        #expect(starts.isEmpty)
        #expect(progress.ends["mood"] == .skipped(.notInTier))
        #expect(progress.ends["prose"] == .skipped(.notInTier))
    }

    @Test func stoppingCancelsWhatRunsAndSkipsWhatWaits() throws {
        var progress = try progress("news", ["text": "up"])
        _ = progress.takeReady()
        progress.stop()
        #expect(progress.ends == ["mood": .cancelled, "prose": .skipped(.ended)])
        #expect(progress.isOver)
        #expect(!progress.requiredStepsAreDone)
    }
}
