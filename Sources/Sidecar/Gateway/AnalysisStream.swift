import SidecarCore
import WeirCore

/// An analysis whose client watches it: steps as they begin, write and end, and at the end the
/// whole answer, as `done` or `error`. When the client goes, the run is cancelled; what it cost by
/// then is charged.
struct AnalysisStream: Sendable {
    let run: AnalysisRun
    let events: RunEvents
    let clock: any GatewayClock
    /// The answer as it would have come whole; also ends the request for metrics and admission.
    let conclude: @Sendable (AnalysisReport) -> GatewayAnswer

    static let mediaType = "text/event-stream"

    func answer() -> GatewayAnswer {
        GatewayAnswer(
            status: 200,
            fields: [
                GatewayField("content-type", Self.mediaType),
                GatewayField("cache-control", "no-store"),
                // What comes of it is in the last event.
                GatewayField("weir-decision", Reason.admitted.name),
            ] + (run.context.ledger.balance?.warningFields ?? []),
            body: .stream { writer in try await write(to: writer) })
    }

    private func write(to writer: any AnswerWriter) async throws {
        try await withThrowingTaskGroup(of: AnalysisReport.self) { group in
            group.addTask {
                let report = await run.run()
                events.end()
                return report
            }
            while let new = await events.next(
                withinNanoseconds: GatewayLimits.heartbeatNanoseconds, clock)
            {
                // A client that is gone ends the group, and with it the run.
                try await writer.write(
                    new.isEmpty ? RunEvent.heartbeat : new.flatMap(\.bytes))
            }
            guard let report = try await group.next() else { return }
            try await writer.write(Self.last(conclude(report)))
        }
    }

    private static func last(_ answer: GatewayAnswer) -> [UInt8] {
        guard case .bytes(let body) = answer.body else { return [] }
        return RunEvent.bytes(answer.status == 200 ? "done" : "error", body)
    }
}

extension GatewayRequest {
    /// The client takes a stream of events, and does not like JSON better.
    var acceptsEvents: Bool {
        var weights: [String: Double] = [:]
        for value in fields.lazy.filter({ $0.name == "accept" }).map(\.value) {
            for range in value.split(separator: ",") {
                let parts = range.split(separator: ";").map { part in
                    part.filter { $0 != " " && $0 != "\t" }.lowercased()
                }
                guard let type = parts.first else { continue }
                let weight = parts.dropFirst().first { $0.hasPrefix("q=") }
                weights[type] = weight.map { Double($0.dropFirst(2)) ?? 0 } ?? 1
            }
        }
        let events = weights[AnalysisStream.mediaType] ?? 0
        return events > 0 && events >= weights["application/json"] ?? 0
    }
}
