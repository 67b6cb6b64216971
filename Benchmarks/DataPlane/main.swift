import Glibc
import SidecarCore

// The data plane alone, for `Benchmarks/run`: one worker that admits everything and does what every
// sidecar does to a message (checks it, edits fields, names its decision).
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
    let server = try SidecarServer(ServerConfiguration(listen: listen, workers: 1)) { worker in
        AdmittingInterceptor(
            UpstreamTarget(name: "upstream", worker: worker, addresses: [upstream]))
    }
    withExtendedLifetime(server) {
        while true { pause() }
    }
} catch {
    print(error)
    exit(1)
}
