import Glibc
import SidecarCore
import Synchronization
import Testing

@Suite struct SocketTests {
    @Test(arguments: [
        ("127.0.0.1:8000", "127.0.0.1:8000"), ("[::1]:80", "[::1]:80"),
        ("::1:80", "[::1]:80"), ("0.0.0.0:0", "0.0.0.0:0"), ("unix:/run/a", "unix:/run/a"),
        ("[2001:db8::5]:65535", "[2001:db8::5]:65535"),
    ])
    func addressesAreRead(text: String, description: String) {
        #expect(SocketAddress(text)?.description == description)
    }

    @Test(arguments: [
        "", ":", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:+1", "127.0.0.1:-1",
        "256.0.0.1:1", "localhost:1", "unix:", "[::1]", "127.0.0.1:1x", "[::1:80",
        "unix:" + String(repeating: "a", count: 108),
    ])
    func othersAreNot(text: String) { #expect(SocketAddress(text) == nil) }

    @Test(arguments: ["127.0.0.1:0", "[::1]:0", "unix:/tmp/weir-socket-test-\(getpid())"])
    func listensAcceptsAndConnects(text: String) throws {
        let address = try #require(SocketAddress(text))
        let fixture = try LoopFixture()
        defer { fixture.stop() }
        let accepted = Signal()
        let listener = fixture.sync { () -> LoopBound<Listener>? in
            guard let socket = try? Socket.listen(on: address),
                let listener = try? Listener(
                    socket, loop: fixture.loop,
                    accepted: { raw, peer in
                        if peer.isLoopback { accepted.set() }
                        close(raw)
                    })
            else { return nil }
            return LoopBound(listener, loop: fixture.loop)
        }
        let bound = try #require(listener)
        let target = fixture.sync { bound.value.address }
        let client: FileDescriptor
        if case .unix = address {
            client = try Socket.connect(to: address)
        } else {
            #expect(target.port != 0)
            client = try Socket.connect(to: target)
        }
        #expect(accepted.wait())
        #expect(Socket.pendingError(client.raw) == 0)
        fixture.sync { bound.value.close() }
        if case .unix(let path) = address { unlink(path) }
    }

    @Test func withoutDescriptorsTheListenerRestsAndGoesOn() async {
        await #expect(processExitsWith: .success) {
            let loop = try EventLoop()
            var accepted = 0
            let listener = try Listener(
                Socket.listen(on: .loopback(port: 0)), loop: loop,
                accepted: { _, _ in
                    accepted += 1
                    loop.stop()
                })
            let client = try Socket.connect(to: listener.address)
            let next = dup(0)
            close(next)
            var limit = rlimit()
            getrlimit(__rlimit_resource_t(7), &limit)
            let before = limit.rlim_cur
            limit.rlim_cur = rlim_t(next)
            setrlimit(__rlimit_resource_t(7), &limit)
            loop.schedule(afterNanoseconds: 200_000_000) {
                // Four rests of 50 ms: it tried again, and it did not spin.
                precondition(accepted == 0 && (2...6).contains(listener.rests))
                limit.rlim_cur = before
                setrlimit(__rlimit_resource_t(7), &limit)
            }
            loop.schedule(afterNanoseconds: 5_000_000_000) { exit(2) }
            loop.run()
            precondition(accepted == 1)
            withExtendedLifetime(client.raw) {}
        }
    }

    @Test func onlyTheSocketOfNobodyIsReplaced() throws {
        var name = Array("/tmp/weir-XXXXXX".utf8CString)
        let folder = try #require(mkdtemp(&name).map { String(cString: $0) })
        let path = folder + "/a.sock"
        defer {
            unlink(path)
            rmdir(folder)
        }
        let address = SocketAddress.unix(path)
        do {
            let living = try Socket.listen(on: address)
            #expect(throws: SystemError.self) { _ = try Socket.listen(on: address).take() }
            // It goes on: what failed did not take its path away.
            _ = try Socket.connect(to: address).raw
            withExtendedLifetime(living.raw) {}
        }
        var status = stat()
        #expect(lstat(path, &status) == 0, "its process is gone, the file is left")
        let next = try Socket.listen(on: address)
        #expect(lstat(path, &status) == 0 && status.st_mode & 0o777 == 0o660)
        withExtendedLifetime(next.raw) {}
        unlink(path)
        let file = open(path, O_CREAT | O_WRONLY, 0o600)
        close(file)
        #expect(throws: SystemError.self) { _ = try Socket.listen(on: address).take() }
        #expect(lstat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFREG)
    }

    @Test func signalsAreEvents() throws {
        let seen = Atomic<Int32>(0)
        let done = Signal()
        // `raise` reaches the calling thread, so the loop runs on the thread that blocks the
        // signal.
        let thread = Thread {
            guard let loop = try? EventLoop(),
                let source = try? SignalSource(
                    [SIGUSR1], loop: loop,
                    received: {
                        seen.store($0, ordering: .relaxed)
                        loop.stop()
                    })
            else { return }
            raise(SIGUSR1)
            loop.run()
            source.close()
            done.set()
        }
        thread.start()
        #expect(done.wait())
        #expect(seen.load(ordering: .relaxed) == SIGUSR1)
    }
}

/// A detached thread for tests.
final class Thread: Sendable {
    private let body: @Sendable () -> Void
    init(_ body: @escaping @Sendable () -> Void) { self.body = body }

    func start() {
        var thread = pthread_t()
        let raw = Unmanaged.passRetained(self).toOpaque()
        pthread_create(
            &thread, nil,
            { raw in
                guard let raw else { return nil }
                Unmanaged<Thread>.fromOpaque(raw).takeRetainedValue().body()
                return nil
            }, raw)
        pthread_detach(thread)
    }
}
