import Glibc

/// What a poll waited for did not happen in time.
struct NeverHappened: Error, CustomStringConvertible {
    let what: String
    var description: String { "not in time: \(what)" }
}

/// Tries each 10 ms for at most ten seconds. The one place where these tests sleep: they wait for
/// conditions, never for time to pass.
func eventually(_ what: String, _ condition: () async throws -> Bool) async throws {
    for _ in 0..<1_000 {
        if try await condition() { return }
        try await Task.sleep(nanoseconds: 10_000_000)
    }
    throw NeverHappened(what: what)
}

/// The same outside of tasks.
func eventually(_ what: String, _ condition: () -> Bool) throws {
    for _ in 0..<1_000 {
        if condition() { return }
        usleep(10_000)
    }
    throw NeverHappened(what: what)
}

/// For what takes a failover: each 10 ms for at most forty seconds, and never on a thread's time.
func patiently(_ what: String, _ condition: () async throws -> Bool) async throws {
    for _ in 0..<4_000 {
        if try await condition() { return }
        try await Task.sleep(nanoseconds: 10_000_000)
    }
    throw NeverHappened(what: what)
}
