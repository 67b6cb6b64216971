/// Waits for a call from any thread, a time, or the end of the task.
struct Wake: Sendable {
    private let stream: AsyncStream<Void>
    private let continuation: AsyncStream<Void>.Continuation

    init() { (stream, continuation) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(1)) }

    var call: @Sendable () -> Void { { [continuation] in _ = continuation.yield() } }

    /// `true`: it was called.
    func wait(until deadline: UInt64, _ clock: any GatewayClock) async -> Bool {
        guard clock.nowNanoseconds < deadline else { return false }
        return await withTaskGroup(of: Bool.self) { group in
            group.addTask {
                for await _ in stream { return true }
                return false
            }
            group.addTask {
                try? await clock.sleep(untilNanoseconds: deadline)
                return false
            }
            defer { group.cancelAll() }
            return await group.next() ?? false
        }
    }
}
