import WeirCore
import WeirLedger
import WeirPolicy

/// What came of a request, for the answer, the metrics and the headers.
package struct AnalysisReport: Hashable, Sendable {
    package enum Status: Hashable, Sendable {
        case complete, partial
        /// A required step failed, or the deadline came before all of them were done.
        case failed(step: String?, Reason)
    }

    package var status: Status
    /// In the plan's order.
    package var steps: [StepReport]
    package var latencyMilliseconds: Int64

    package init(status: Status, steps: [StepReport], latencyMilliseconds: Int64) {
        self.status = status
        self.steps = steps
        self.latencyMilliseconds = latencyMilliseconds
    }

    package var totalCost: NanoUSD { steps.reduce(.zero) { $0 + $1.cost } }
}

/// Runs the plan of one request: ready steps at once, as children of this task, until every step
/// has ended, a required one has failed or the deadline is there. What runs then is cancelled; what
/// it cost by then is charged like everything else.
package struct AnalysisRun: Sendable {
    private enum Event: Sendable {
        case ended(StepReport)
        case deadline
        /// The sleep until the deadline was cancelled.
        case undisturbed
    }

    let context: RunContext

    package init(context: RunContext) { self.context = context }

    package func run() async -> AnalysisReport {
        let began = context.clock.nowNanoseconds
        var progress = PlanProgress(
            type: context.request.type, tier: context.caller.tier.name,
            data: context.request.data, excluded: stepsWithoutAgents)
        var reports: [String: StepReport] = [:]
        var deadlinePassed = false
        await withTaskGroup(of: Event.self) { group in
            group.addTask { await waitForDeadline() }
            begin(&progress, &group)
            while !progress.isOver, let event = await group.next() {
                switch event {
                case .undisturbed: continue
                case .deadline:
                    deadlinePassed = true
                    progress.stop()
                case .ended(let report):
                    reports[report.name] = report
                    context.events?.send(.stepEnded(report))
                    progress.stepEnded(report.name, report.end)
                    if progress.failedRequiredStep != nil { progress.stop() }
                    begin(&progress, &group)
                }
            }
            group.cancelAll()
            // Cancelled steps still say what they cost.
            for await case .ended(let report) in group { reports[report.name] = report }
        }
        return report(
            progress, reports, deadlinePassed: deadlinePassed,
            latencyNanoseconds: context.clock.nowNanoseconds - began)
    }

    private func begin(
        _ progress: inout PlanProgress, _ group: inout TaskGroup<Event>
    ) {
        for start in progress.takeReady() {
            context.events?.send(.stepStarted(start.step.name))
            group.addTask { .ended(await StepRunner(context: context, start: start).run()) }
        }
    }

    /// Steps that the caller's exclusions leave nobody for.
    private var stepsWithoutAgents: Set<String> {
        let excluded = context.caller.preferences.excludedAgents
        guard !excluded.isEmpty else { return [] }
        let steps = context.request.type.steps.filter { step in
            CandidateOrder.names(
                of: step, tier: context.caller.tier, policy: context.snapshot.policy,
                excluded: excluded
            ).isEmpty
        }
        return Set(steps.map(\.name))
    }

    private func waitForDeadline() async -> Event {
        do {
            try await context.clock.sleep(untilNanoseconds: context.deadlineNanoseconds)
            return .deadline
        } catch {
            return .undisturbed
        }
    }

    private func report(
        _ progress: PlanProgress, _ reports: [String: StepReport], deadlinePassed: Bool,
        latencyNanoseconds: UInt64
    ) -> AnalysisReport {
        let steps = context.request.type.steps.map { step in
            var report = reports[step.name] ?? StepReport(name: step.name, end: .skipped(.ended))
            // A step that was stopped stays stopped, even if its answer came in the same moment.
            report.end = progress.ends[step.name] ?? report.end
            if deadlinePassed, report.end == .cancelled {
                report.end = .failed(.deadline)
                report.problemDetail = "The request's time is over."
            }
            return report
        }
        let status: AnalysisReport.Status
        if let (name, reason) = progress.failedRequiredStep {
            status = .failed(step: name, reason)
        } else if progress.isComplete {
            status = .complete
        } else if let (name, reason) = progress.failureOfAll {
            status = .failed(step: name, reason)
        } else if progress.requiredStepsAreDone, progress.hasResult {
            status = .partial
        } else {
            status = .failed(step: nil, .deadline)
        }
        return AnalysisReport(
            status: status, steps: steps,
            latencyMilliseconds: Int64(clamping: latencyNanoseconds / 1_000_000))
    }
}
