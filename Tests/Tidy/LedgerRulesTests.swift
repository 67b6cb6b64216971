import Testing

/// `docs/internals/ledger-rules.md` names a test for each rule and message of the ledger.
struct LedgerRulesTests {
    @Test func `every rule of the ledger has a test that is there`() throws {
        let document = try NamedTests(document: "docs/internals/ledger-rules.md")
        #expect(document.parts.map(\.title) == ["Rules", "Messages"])
        document.check()
    }
}
