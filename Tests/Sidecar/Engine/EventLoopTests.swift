import CLinux
import Glibc
import Synchronization
import Testing

@testable import SidecarCore

@Suite struct EventLoopTests {
    @Test func executesOnItsThread() throws {
        let fixture = try LoopFixture()
        defer { fixture.stop() }
        #expect(!fixture.loop.isInLoop)
        #expect(fixture.sync { fixture.loop.isInLoop })
    }

    @Test func executionKeepsTheOrder() throws {
        let fixture = try LoopFixture()
        defer { fixture.stop() }
        let seen = Mutex<[Int]>([])
        for number in 0..<1000 { fixture.loop.execute { seen.withLock { $0.append(number) } } }
        #expect(eventually { seen.withLock { $0.count } == 1000 })
        #expect(seen.withLock { $0 } == Array(0..<1000))
    }

    @Test func timersFireInOrderAndCancelledOnesDoNot() throws {
        let fixture = try LoopFixture()
        defer { fixture.stop() }
        let seen = Mutex<[Int]>([])
        fixture.sync {
            let loop = fixture.loop
            loop.schedule(afterNanoseconds: 30_000_000) { seen.withLock { $0.append(3) } }
            loop.schedule(afterNanoseconds: 10_000_000) { seen.withLock { $0.append(1) } }
            let cancelled = loop.schedule(afterNanoseconds: 15_000_000) {
                seen.withLock { $0.append(9) }
            }
            loop.schedule(afterNanoseconds: 20_000_000) { seen.withLock { $0.append(2) } }
            cancelled.cancel()
        }
        #expect(eventually { seen.withLock { $0.count } == 3 })
        #expect(seen.withLock { $0 } == [1, 2, 3])
    }

    private final class Deadline: Timed {
        let passed: () -> Void
        init(_ passed: @escaping () -> Void) { self.passed = passed }
        override func deadlinePassed() { passed() }
    }

    @Test func aDeadlineMovesBothWays() throws {
        let fixture = try LoopFixture()
        defer { fixture.stop() }
        let fired = Mutex<[(String, UInt64)]>([])
        let start = weir_monotonic_nanoseconds()
        fixture.sync {
            let loop = fixture.loop
            let later = Deadline { fired.withLock { $0.append(("later", loop.nowNanoseconds)) } }
            loop.setDeadline(later, afterNanoseconds: 5_000_000)
            loop.setDeadline(later, afterNanoseconds: 60_000_000)
            let sooner = Deadline { fired.withLock { $0.append(("sooner", loop.nowNanoseconds)) } }
            loop.setDeadline(sooner, afterNanoseconds: 60_000_000_000)
            loop.setDeadline(sooner, afterNanoseconds: 5_000_000)
            let never = Deadline { fired.withLock { $0.append(("never", 0)) } }
            loop.setDeadline(never, afterNanoseconds: 1_000_000)
            loop.setDeadline(never, atNanoseconds: .max)
        }
        #expect(eventually { fired.withLock { $0.count } == 2 })
        let seen = fired.withLock { $0 }
        #expect(seen.map(\.0) == ["sooner", "later"])
        #expect(seen[1].1 >= start + 60_000_000)
    }

    @Test func childrenOfTaskGroupsStayOnTheLoop() throws {
        let fixture = try LoopFixture()
        defer { fixture.stop() }
        let loop = fixture.loop
        let outside = Counter()
        let done = Signal()
        loop.spawn {
            await withTaskGroup(of: Void.self) { group in
                for _ in 0..<10 {
                    group.addTask {
                        if !loop.isInLoop { outside.increment() }
                        try? await loop.sleep(nanoseconds: 1_000_000)
                        if !loop.isInLoop { outside.increment() }
                    }
                }
            }
            if !loop.isInLoop { outside.increment() }
            done.set()
        }
        #expect(done.wait())
        #expect(outside.count == 0)
    }

    @Test func sleepIsCancelled() throws {
        let fixture = try LoopFixture()
        defer { fixture.stop() }
        let loop = fixture.loop
        let cancelled = Signal()
        let task = loop.spawn {
            do { try await loop.sleep(nanoseconds: 60_000_000_000) } catch { cancelled.set() }
        }
        task.cancel()
        #expect(cancelled.wait())
    }

    private actor OnLoop {
        let loop: EventLoop
        nonisolated var unownedExecutor: UnownedSerialExecutor { loop.asUnownedSerialExecutor() }
        init(loop: EventLoop) { self.loop = loop }
        func runsOnLoop() -> Bool {
            loop.preconditionInLoop()
            return loop.isInLoop
        }
    }

    @Test func actorsRunOnTheLoop() async throws {
        let fixture = try LoopFixture()
        let seen = await OnLoop(loop: fixture.loop).runsOnLoop()
        fixture.stop()
        #expect(seen)
    }

    private final class Recorder: EventHandler {
        let heard: (Readiness) -> Void
        init(_ heard: @escaping (Readiness) -> Void) { self.heard = heard }
        override func ready(_ events: Readiness) { heard(events) }
    }

    @Test func descriptorsReportAndStaleEventsAreDropped() throws {
        let fixture = try LoopFixture()
        defer { fixture.stop() }
        let loop = fixture.loop
        var pair: [Int32] = [0, 0]
        #expect(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &pair) == 0)
        defer { pair.forEach { close($0) } }
        let peer = pair[1]
        let readable = Signal()
        let ended = Signal()
        let calls = Atomic<Int>(0)
        let recorder = fixture.sync { () -> LoopBound<Recorder> in
            let recorder = Recorder { events in
                calls.add(1, ordering: .relaxed)
                if events.contains(.readable) { readable.set() }
                if !events.isDisjoint(with: .peerClosed) { ended.set() }
            }
            try? loop.register(recorder, pair[0])
            return LoopBound(recorder, loop: loop)
        }
        #expect(write(peer, "x", 1) == 1)
        #expect(readable.wait())
        shutdown(peer, Int32(SHUT_WR))
        #expect(ended.wait())
        let before = fixture.sync { () -> Int in
            // An event that is in the kernel's list already, for a handler that is gone.
            shutdown(peer, Int32(SHUT_RDWR))
            loop.runAgain(recorder.value)
            loop.deregister(recorder.value)
            return calls.load(ordering: .relaxed)
        }
        fixture.sync {}
        fixture.sync {}
        #expect(calls.load(ordering: .relaxed) == before)
    }
}
