/// What a poll waited for did not happen in time.
struct NeverHappened: Error, CustomStringConvertible {
    let what: String
    let waited: Duration
    let lastError: (any Error)?

    var description: String {
        let reason = lastError.map { "; the last try threw: \($0)" } ?? ""
        return "not within \(waited): \(what)\(reason)"
    }
}

/// Tries until `probe` gives a value, and gives up after a bound. The one place where tests sleep:
/// they wait for conditions, never for time to pass.
///
/// An error of the probe counts as "not yet": a server that is starting refuses connections.
@discardableResult
func eventually<Value>(
    _ what: String, within bound: Duration = .seconds(10),
    every pause: Duration = .milliseconds(10),
    _ probe: () async throws -> Value?
) async throws -> Value {
    let clock = ContinuousClock()
    let start = clock.now
    var lastError: (any Error)?
    repeat {
        do {
            if let value = try await probe() { return value }
            lastError = nil
        } catch {
            lastError = error
        }
        try await clock.sleep(for: pause)
    } while clock.now - start < bound
    throw NeverHappened(what: what, waited: bound, lastError: lastError)
}

/// The same for a condition that is true or false.
func eventually(
    _ what: String, within bound: Duration = .seconds(10),
    every pause: Duration = .milliseconds(10),
    _ condition: () async throws -> Bool
) async throws {
    try await eventually(what, within: bound, every: pause) { () async throws -> Void? in
        try await condition() ? () : nil
    }
}

/// Watches that a condition stays true for a while, for what must not happen.
func steadily(
    _ what: String, for span: Duration, _ condition: () async throws -> Bool
) async throws {
    let clock = ContinuousClock()
    let end = clock.now + span
    while clock.now < end {
        guard try await condition() else {
            throw NeverHappened(what: "did not stay so: \(what)", waited: span, lastError: nil)
        }
        try await clock.sleep(for: .milliseconds(10))
    }
}
