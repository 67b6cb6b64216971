import Testing
import WeirCore

@testable import SidecarCore

@Suite struct RetryAfterTests {
    /// 2026-11-22T14:20:00Z
    private let now = UnixTime(seconds: 1_795_357_200)

    private func seconds(_ value: String, date: String? = nil) -> UInt64? {
        RetryAfter.nanoseconds(value, answeredAt: date, now: now).map { $0 / 1_000_000_000 }
    }

    @Test func secondsAreTaken() {
        #expect(seconds("0") == 0 && seconds("120") == 120 && seconds("86400") == 86_400)
    }

    @Test func aDateIsMeasuredFromTheAnswersOwn() {
        let until = "Sun, 22 Nov 2026 14:21:30 GMT"
        #expect(seconds(until) == 90)
        #expect(seconds(until, date: "Sun, 22 Nov 2026 14:21:20 GMT") == 10, "a fast clock")
        #expect(seconds(until, date: "nonsense") == 90)
        #expect(seconds("Sun, 22 Nov 2026 14:19:00 GMT") == 0, "over already")
    }

    @Test(arguments: ["", "-1", "+1", "1.5", "soon", "86401", "99999999999999999999", "1 "])
    func theRestIsLeftToTheBackOff(value: String) {
        #expect(seconds(value) == nil)
    }

    @Test func aDateTooFarAwayIsLeftToTheBackOff() {
        #expect(seconds("Tue, 24 Nov 2026 14:20:00 GMT") == nil)
    }
}
