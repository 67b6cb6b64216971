import Testing
import WeirCore

@Suite struct TagsTests {
    @Test func oneSetHasOneSpelling() throws {
        let tags = try #require(Tags(list: "team:search,  launch , a.b_c/d@e-1,launch"))
        #expect(tags.text == "a.b_c/d@e-1,launch,team:search")
        #expect(tags.names == ["a.b_c/d@e-1", "launch", "team:search"])
        #expect(Tags(["launch", "team:search", "a.b_c/d@e-1"]) == tags)
        #expect(Tags(text: tags.text) == tags)
        #expect(Tags(text: "") == Tags.none && Tags.none.isEmpty && Tags.none.names.isEmpty)
        #expect(Tags([] as [String]) == Tags.none)
    }

    @Test(arguments: ["b,a", "a,a", "a, b", ",", "a,", " a"])
    func anotherSpellingIsNoText(_ text: String) {
        #expect(Tags(text: text) == nil)
    }

    @Test(arguments: [
        "", ",", "a,,b", "a b", "a\tb", "ä", "a%b", "a*", "a\u{0}", "'", "\"", "{x}", "a;b",
        String(repeating: "x", count: 65), "1,2,3,4,5,6,7,8,9",
        (0..<4).map { String(repeating: "\($0)", count: 60) }.joined(separator: ","),
    ])
    func whatIsNoShortListOfPlainNamesIsRefused(_ list: String) {
        #expect(Tags(list: list) == nil)
    }

    @Test func theLimitsThemselvesAreAllowed() {
        #expect(Tags(list: String(repeating: "x", count: 64)) != nil)
        #expect(Tags(list: "1,2,3,4,5,6,7,8,8,8") != nil)
        let long = (0..<4).map { String(repeating: "\($0)", count: 49) }
        #expect(Tags(long)?.text.utf8.count == 199)
    }
}
