import Glibc
import SidecarCore
import Testing

@testable import SidecarWiring

/// Files that change, and what is made of them; the context is a text here.
@Suite struct TLSReloaderTests {
    private let folder = TemporaryFolder()
    private var path: String { folder.path + "/server.pem" }

    private func reloader(renewal: UInt64 = .max) -> TLSReloader<String> {
        folder.write(Array("one".utf8), to: "server.pem")
        return TLSReloader([path], "one", renewedAfterNanoseconds: renewal, nowNanoseconds: 1_000)
    }

    private func replaceFile(_ text: String) {
        folder.write(Array(text.utf8), to: "next")
        #expect(rename(folder.path + "/next", path) == 0)
    }

    @Test func `files that stay are read once`() {
        let reloader = reloader()
        #expect(
            reloader.look(nowNanoseconds: 2_000) {
                Issue.record("read"); return ""
            } == .unchanged)
        #expect(reloader.current.context == "one")
    }

    @Test func `another file is another context`() {
        let reloader = reloader()
        replaceFile("two")
        #expect(reloader.look(nowNanoseconds: 2_000) { "two" } == .replaced)
        #expect(reloader.current.context == "two")
        #expect(reloader.look(nowNanoseconds: 3_000) { "three" } == .unchanged)
    }

    @Test func `what cannot be used is told once and changes nothing`() {
        let reloader = reloader()
        let problem = OptionProblem(option: "tls-key", message: "no key")
        replaceFile("two")
        #expect(
            reloader.look(nowNanoseconds: 2_000) { () throws(OptionProblems) in
                throw OptionProblems(list: [problem])
            } == .refused([problem]))
        #expect(reloader.look(nowNanoseconds: 3_000) { "two" } == .unchanged)
        #expect(reloader.current.context == "one")
        unlink(path)
        #expect(
            reloader.look(nowNanoseconds: 4_000) { () throws(OptionProblems) in
                throw OptionProblems(list: [problem])
            } == .refused([problem]))
        #expect(reloader.current.context == "one")
    }

    @Test func `ticket keys are renewed in time, with the files as they are`() {
        let reloader = reloader(renewal: 500)
        #expect(reloader.look(nowNanoseconds: 1_499) { "two" } == .unchanged)
        #expect(reloader.look(nowNanoseconds: 1_500) { "two" } == .renewed)
        #expect(reloader.current.context == "two")
        #expect(reloader.look(nowNanoseconds: 1_999) { "three" } == .unchanged)
    }
}
