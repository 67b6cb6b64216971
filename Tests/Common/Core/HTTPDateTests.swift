import Testing
import WeirCore

@Suite struct HTTPDateTests {
    private let now = UnixTime(seconds: 1_795_357_200)

    /// The examples of RFC 9110 §5.6.7.
    @Test(arguments: [
        "Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
    ])
    func theThreeForms(text: String) {
        #expect(UnixTime(httpDate: text, now: now)?.rfc3339 == "1994-11-06T08:49:37Z")
    }

    @Test(arguments: [
        ("Friday, 31-Dec-76 23:59:60 GMT", "2077-01-01T00:00:00Z"),
        ("Friday, 31-Dec-77 00:00:00 GMT", "1977-12-31T00:00:00Z"),
        ("Mon, 29 Feb 2028 00:00:00 GMT", "2028-02-29T00:00:00Z"),
        ("Sat Nov 21 10:00:00 2026", "2026-11-21T10:00:00Z"),
    ])
    func centuriesAndLeaps(text: String, time: String) {
        #expect(UnixTime(httpDate: text, now: now)?.rfc3339 == time)
    }

    @Test(arguments: [
        "", "120", "Sun, 06 Nov 1994 08:49:37", "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 31 Feb 2027 08:49:37 GMT", "Sun, 06 nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 94 08:49:37 GMT", "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT", "Sun, 06 Nov 1994 08:60:00 GMT",
        "Sun, 06 Nov 1994 08:49:61 GMT", "Sun, 06 Nov 1994 8:49:37 GMT",
        "Sun, 06 Nov 1994 08:49 GMT", "Sun Nov 6 08:49:37 94", "Sun, ٠٦ Nov 1994 08:49:37 GMT",
    ])
    func whatIsNoDate(text: String) {
        #expect(UnixTime(httpDate: text, now: now) == nil)
    }
}
