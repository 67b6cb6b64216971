import CAllocationCounter
import Glibc
import SidecarCore

// The data plane alone, for `Benchmarks/run`: one worker that admits everything and does what every
// sidecar does to a message (checks it, edits fields, names its decision). On SIGUSR1 it prints how
// many requests there were and how often the worker's thread asked for memory.
//
// usage: data-plane-benchmark LISTEN UPSTREAM

let arguments = CommandLine.arguments
guard arguments.count == 3, let listen = SocketAddress(arguments[1]),
    let upstream = SocketAddress(arguments[2])
else {
    print("usage: data-plane-benchmark LISTEN UPSTREAM")
    exit(64)
}
do {
    var signals: SignalSource?
    let server = try SidecarServer(ServerConfiguration(listen: listen, workers: 1)) { worker in
        signals = try SignalSource([SIGUSR1], loop: worker.loop) { _ in
            print("\(worker.exchangesBegun) \(weir_thread_allocations())")
            fflush(nil)
        }
        return AdmittingInterceptor(
            UpstreamTarget(name: "upstream", worker: worker, addresses: [upstream]))
    }
    withExtendedLifetime((server, signals)) {
        while true { pause() }
    }
} catch {
    print(error)
    exit(1)
}
