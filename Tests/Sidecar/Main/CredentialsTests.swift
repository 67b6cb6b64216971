import Testing

@testable import SidecarWiring

@Suite struct CredentialsTests {
    private let credentials = Credentials(
        ["OPENAI_API_KEY": "old", "HUGGINGFACE_API_KEY": "fixed"],
        files: ["OPENAI_API_KEY": "/run/key"])

    private func reload(_ text: String?) -> Credentials.Reload {
        credentials.reload { (path) throws(OptionProblem) in
            guard let text, path == "/run/key" else {
                throw OptionProblem(option: path, message: "is not there")
            }
            return Array(text.utf8)
        }
    }

    @Test func aKeyThatWasReplacedIsUsed() {
        #expect(reload("old\n") == .init())
        #expect(reload("new\r\n") == .init(changed: ["OPENAI_API_KEY"]))
        #expect(credentials.authorization("OPENAI_API_KEY") == "Bearer new")
        #expect(credentials.authorization("HUGGINGFACE_API_KEY") == "Bearer fixed")
        #expect(credentials.authorization("OTHER") == nil)
    }

    @Test(arguments: [nil, "", "two words", "key\r\nx-injected: 1"])
    func whatIsNoKeyLeavesTheKeyAndIsSaidOnce(text: String?) {
        let first = reload(text)
        #expect(first.changed.isEmpty && first.unusable.map(\.option) == ["/run/key"])
        #expect(!first.unusable.map(\.description).joined().contains("injected"))
        #expect(reload(text) == .init())
        #expect(credentials.authorization("OPENAI_API_KEY") == "Bearer old")
        #expect(reload("new") == .init(changed: ["OPENAI_API_KEY"]))
        #expect(reload(text).unusable.count == 1)
    }
}
