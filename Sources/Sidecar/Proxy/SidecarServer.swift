import CLinux
import Glibc
import Synchronization
import WeirCore

/// What a sidecar's data plane needs to start.
package struct ServerConfiguration: Sendable {
    package var listen: SocketAddress
    package var workers: Int
    package var timeouts: Timeouts
    /// `nil`: plaintext.
    package var tls: TLSListener?

    package init(
        listen: SocketAddress, workers: Int = 1, timeouts: Timeouts = Timeouts(),
        tls: TLSListener? = nil
    ) {
        self.listen = listen
        self.workers = workers
        self.timeouts = timeouts
        self.tls = tls
    }
}

/// The data plane: worker threads, each with its loop, its listener on the same port and its pools.
/// Nothing is shared between workers here; what an interceptor shares is its own matter.
package final class SidecarServer: @unchecked Sendable {
    // SAFETY: everything is written in `init`; workers and listeners are touched on their loops.
    package private(set) var workers: [Worker] = []
    private var threads: [LoopThread] = []
    private var listeners: [Listener] = []
    package private(set) var address: SocketAddress

    /// `makeInterceptor` is called once for each worker, before its thread starts.
    package init(
        _ configuration: ServerConfiguration,
        makeInterceptor: (Worker) throws -> Interceptor
    ) throws {
        weir_ignore_sigpipe()
        address = configuration.listen
        // A Unix socket has no SO_REUSEPORT, so one worker serves it.
        var count = max(configuration.workers, 1)
        if case .unix = configuration.listen { count = 1 }
        for _ in 0..<count {
            let worker = Worker(loop: try EventLoop(), timeouts: configuration.timeouts)
            let interceptor = try makeInterceptor(worker)
            let listener = try Listener(
                Socket.listen(on: address), loop: worker.loop,
                accepted: { descriptor, peer in
                    worker.serve(
                        descriptor: descriptor, peer: peer, interceptor: interceptor,
                        tls: configuration.tls)
                })
            // With port 0, the first listener's choice is everybody's.
            if case .unix = address {} else { address = listener.address }
            workers.append(worker)
            listeners.append(listener)
        }
        for (index, worker) in workers.enumerated() {
            threads.append(try LoopThread(worker.loop, name: "weir-worker-\(index)"))
        }
    }

    /// Takes no new connections, lets exchanges end (bounded by `drainNanoseconds`), then calls
    /// `completed` on one of the loops.
    package func drain(completed: @escaping @Sendable () -> Void) {
        let remaining = DrainCount(workers.count)
        for (worker, listener) in zip(workers, listeners) {
            let bound = LoopBound((worker, listener), loop: worker.loop)
            worker.loop.execute {
                let (worker, listener) = bound.value
                listener.close()
                worker.drain { if remaining.oneLess() { completed() } }
                worker.flush()
            }
        }
    }

    /// Ends the threads at once. When it returns, nobody listens at the address any more.
    package func stop() {
        for (worker, listener) in zip(workers, listeners) {
            let loop = worker.loop
            let bound = LoopBound(listener, loop: loop)
            loop.execute {
                bound.value.close()
                loop.stop()
            }
        }
        for thread in threads { thread.join() }
        // The descriptors are closed with the last references.
        listeners = []
    }
}

/// Counts workers down, from their threads.
private final class DrainCount: Sendable {
    private let remaining: Atomic<Int>
    init(_ count: Int) { remaining = Atomic(count) }
    func oneLess() -> Bool {
        remaining.subtract(1, ordering: .sequentiallyConsistent).newValue == 0
    }
}
