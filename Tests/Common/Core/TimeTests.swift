import Testing
import WeirCore

@Suite struct TimeTests {
    @Test(
        arguments: [
            (0, "1970-01-01T00:00:00Z"), (-1, "1969-12-31T23:59:59Z"),
            (951_782_399, "2000-02-28T23:59:59Z"), (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_357_200, "2026-11-22T14:20:00Z"), (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] as [(Int64, String)])
    func writesRFC3339(seconds: Int64, text: String) {
        #expect(UnixTime(seconds: seconds).rfc3339 == text)
    }

    @Test func datesAndDaysAreInverse() {
        for day in stride(from: Int64(-800_000), through: 3_000_000, by: 37) {
            #expect(CivilDate(daysSinceEpoch: day).daysSinceEpoch == day)
        }
    }

    @Test func secondsRoundDown() {
        #expect(UnixTime(milliseconds: 1_999).seconds == 1)
        #expect(UnixTime(milliseconds: -1).seconds == -1)
        #expect(UnixTime(milliseconds: -1_000).seconds == -1)
    }

    @Test(
        arguments: [
            (Period.Kind.month, "2026-11", "2026-12-01T00:00:00Z"),
            (.day, "2026-11-22", "2026-11-23T00:00:00Z"),
            (.minute, "2026-11-22T14:20", "2026-11-22T14:21:00Z"), (.forever, "-", nil),
        ] as [(Period.Kind, String, String?)])
    func periodsOfATime(kind: Period.Kind, text: String, end: String?) {
        let period = Period(kind, at: UnixTime(seconds: 1_795_357_200))
        #expect(period.description == text)
        #expect(period.end?.rfc3339 == end)
        #expect(Period(text) == period)
    }

    @Test func aMinuteBeginsWithItsMinute() {
        let minute = Period(.minute, at: UnixTime(milliseconds: 1_795_357_259_999))
        #expect(minute.beginning == UnixTime(seconds: 1_795_357_200))
        #expect(minute == Period("2026-11-22T14:20"))
        #expect(Period(.day, at: minute.beginning).beginning.rfc3339 == "2026-11-22T00:00:00Z")
    }

    @Test func aYearEnds() {
        #expect(Period("2026-12")?.end?.rfc3339 == "2027-01-01T00:00:00Z")
        #expect(Period("2026-12-31")?.end?.rfc3339 == "2027-01-01T00:00:00Z")
        #expect(Period("2024-02-28")?.end?.rfc3339 == "2024-02-29T00:00:00Z")
        #expect(Period("2026-12-31T23:59")?.end?.rfc3339 == "2027-01-01T00:00:00Z")
    }

    @Test(arguments: [
        "", "2026", "2026-13", "2026-00", "2026-1", "26-01", "2026-02-29", "2026-11-31",
        "2026-11-00", "2026-11-22-1", "2026--1", "--", "２026-11", "2026-11 ", "+026-11",
        "2026-11-22T", "2026-11-22T24:00", "2026-11-22T14:60", "2026-11-22T1:20", "2026-11T14:20",
        "2026-11-22T14:20:00", "2026-11-22T14:+2", "2026-11-22T14:20T", "T14:20", "-T14:20",
    ])
    func refusesOtherPeriods(text: String) {
        #expect(Period(text) == nil)
    }

    @Test(
        arguments: [
            ("2026-11-22T14:20:07Z", 1_795_357_207_000), ("1970-01-01T00:00:00.001Z", 1),
            ("2026-11-22T14:20:07.1Z", 1_795_357_207_100),
            ("2026-11-22T14:20:07.123456789Z", 1_795_357_207_123),
            ("1969-12-31T23:59:59.999Z", -1), ("2026-11-22T14:20:07", nil), ("", nil),
            ("2026-11-22T24:00:00Z", nil), ("2026-11-22T14:60:00Z", nil),
            ("2026-11-22T14:20:60Z", nil), ("2026-02-30T14:20:07Z", nil),
            ("2026-11-22 14:20:07Z", nil), ("2026-11-22T14:20:07.Z", nil),
            ("2026-11-22T14:20:07.1234567890Z", nil), ("2026-11-22T14:20:+7Z", nil),
            ("2026-11-22T14:20:07+01:00", nil), ("2026-11-22T14:20:07.12xZ", nil),
        ] as [(String, Int64?)])
    func momentsAreRead(text: String, milliseconds: Int64?) {
        #expect(UnixTime(rfc3339: text)?.milliseconds == milliseconds)
        guard let milliseconds else { return }
        let time = UnixTime(milliseconds: milliseconds)
        #expect(UnixTime(rfc3339: time.rfc3339Milliseconds) == time)
    }
}
