import Testing
import WeirCore
import WeirPolicy

@testable import ControlPlaneStore

@Suite(.timeLimit(.minutes(1))) struct PolicyStoreTests {
    private static let documents: [JSONValue] = [
        ["kind": "Tier", "metadata": ["name": "free \"x\" é\n"], "spec": ["monthlyBudget": "5"]]
    ]

    @Test func versionsOnlyGrow() async throws {
        let mesh = try await LedgerMesh()
        let store = PolicyStore(redis: mesh.redis)
        #expect(try await store.current() == nil)
        let first = try await store.activate(
            documents: Self.documents, hash: "aa", expected: .some(nil), author: "ann \"a\"",
            note: "line\none")
        #expect(first.number == 1 && first.hash == "aa" && first.epoch > 0)
        let second = try await store.activate(
            documents: [], hash: "bb", expected: first, author: "bob", note: "")
        #expect(second.number == 2)
        let back = try #require(
            try await store.rollback(to: 1, expected: second, author: "ann", note: "back"))
        #expect(back.number == 3 && back.hash == "aa")
        let current = try #require(try await store.current())
        #expect(current.documents == Self.documents && current.version == back)
        #expect(try await store.bundle(number: 2)?.documents == [])
        #expect(try await store.rollback(to: 99, author: "ann", note: "") == nil)
        let history = try await store.history(limit: 10)
        #expect(history.map(\.version.number) == [3, 2, 1])
        #expect(history.last?.author == "ann \"a\"" && history.last?.note == "line\none")
    }

    @Test func whoComesSecondIsToldWhatIsActive() async throws {
        let mesh = try await LedgerMesh()
        let store = PolicyStore(redis: mesh.redis)
        let first = try await store.activate(
            documents: [], hash: "aa", expected: .some(nil), author: "ann", note: "")
        await #expect(throws: PolicyConflict(current: first)) {
            try await store.activate(
                documents: [], hash: "bb", expected: .some(nil), author: "bob", note: "")
        }
        // The same again by the same author is an answer that was lost.
        let again = try await store.activate(
            documents: [], hash: "aa", expected: .some(nil), author: "ann", note: "")
        #expect(again == first)
    }

    @Test func ofManyAtOnceOneIsActivated() async throws {
        let mesh = try await LedgerMesh()
        let store = PolicyStore(redis: mesh.redis)
        let activated = await withTaskGroup(of: Bool.self) { group in
            for index in 0..<20 {
                group.addTask {
                    let version = try? await store.activate(
                        documents: [], hash: "\(index)", expected: .some(nil),
                        author: "\(index)", note: "")
                    return version != nil
                }
            }
            return await group.reduce(0) { $0 + ($1 ? 1 : 0) }
        }
        #expect(activated == 1)
        #expect(try await store.currentVersion()?.number == 1)
    }

    @Test func activationIsHintedAndSurvivesACrash() async throws {
        let mesh = try await LedgerMesh()
        let store = PolicyStore(redis: mesh.redis)
        var hints = mesh.redis.hints().makeAsyncIterator()
        #expect(await hints.next() == .anything)
        let version = try await store.activate(
            documents: Self.documents, hash: "aa", author: "ann", note: "")
        #expect(await hints.next() == .policyChanged)
        mesh.server.kill()
        try mesh.server.start()
        #expect(try await store.current()?.version == version)
        #expect(await hints.next() == .anything)
    }
}
