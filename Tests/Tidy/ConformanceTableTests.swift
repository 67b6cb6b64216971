import Testing

/// `docs/conformance.md` names a test for each requirement of the HTTP standards.
struct ConformanceTableTests {
    @Test func `every requirement of HTTP has a test that is there`() throws {
        let document = try NamedTests(document: "docs/conformance.md")
        for standard in ["RFC 9110", "RFC 9112", "RFC 9113"] {
            #expect(document.parts.contains { $0.title.hasPrefix(standard) })
        }
        #expect(document.parts.map(\.rows.count).reduce(0, +) >= 70)
        document.check()
    }
}
