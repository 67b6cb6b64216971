import WeirCore

/// How long an agent asks to be left alone (RFC 9110 §10.2.3).
enum RetryAfter {
    /// More than this is not waited for: the back-off decides then.
    static let secondsMax: Int64 = 86_400

    /// `nil` for what is no such field. A date is measured from the answer's own `Date`, where it
    /// has one, so that it does not matter whose clock is wrong.
    static func nanoseconds(_ value: String, answeredAt date: String?, now: UnixTime) -> UInt64? {
        let seconds: Int64
        if let until = UnixTime(httpDate: value, now: now) {
            let answered = date.flatMap { UnixTime(httpDate: $0, now: now) } ?? now
            seconds = max(0, until.seconds - answered.seconds)
        } else {
            guard value.utf8.allSatisfy({ (48...57).contains($0) }), let given = Int64(value)
            else { return nil }
            seconds = given
        }
        guard seconds <= secondsMax else { return nil }
        return UInt64(seconds) * 1_000_000_000
    }
}
