import CLinux
import Glibc

/// The few socket calls that the sidecar makes. All sockets are non-blocking and close-on-exec.
package enum Socket {
    private static let streamType =
        Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue)

    /// A listening socket. With `sharesPort`, each worker opens its own on the same port and the
    /// kernel spreads connections over them (SO_REUSEPORT).
    package static func listen(
        on address: SocketAddress, sharesPort: Bool = true
    ) throws(SystemError) -> FileDescriptor {
        let descriptor = try open(address)
        if case .unix(let path) = address {
            removeStale(path, address)
        } else {
            setOption(descriptor.raw, SOL_SOCKET, SO_REUSEADDR)
            if sharesPort { setOption(descriptor.raw, SOL_SOCKET, SO_REUSEPORT) }
        }
        let bound = address.withSockaddr { bind(descriptor.raw, $0, $1) }
        guard bound == 0 else { throw SystemError("bind \(address)") }
        if case .unix(let path) = address {
            // For the owner and the group, whatever the umask; nobody can connect before `listen`.
            guard chmod(path, 0o660) == 0 else { throw SystemError("chmod \(address)") }
        }
        guard Glibc.listen(descriptor.raw, Limits.listenBacklog) == 0 else {
            throw SystemError("listen \(address)")
        }
        return descriptor
    }

    /// The socket file of a process that is gone would make bind fail for ever. Anything else at
    /// the path, and a socket that somebody listens on, stays, and bind says so.
    private static func removeStale(_ path: String, _ address: SocketAddress) {
        var status = stat()
        guard lstat(path, &status) == 0, status.st_mode & S_IFMT == S_IFSOCK,
            let probe = try? open(address)
        else { return }
        let isDead = address.withSockaddr { Glibc.connect(probe.raw, $0, $1) } != 0
        if isDead, errno == ECONNREFUSED { unlink(path) }
    }

    /// Begins to connect. The result is known when the descriptor becomes writable; then ask
    /// `pendingError`.
    package static func connect(to address: SocketAddress) throws(SystemError) -> FileDescriptor {
        let descriptor = try open(address)
        if address.family != AF_UNIX { disableNagle(descriptor.raw) }
        let result = address.withSockaddr { Glibc.connect(descriptor.raw, $0, $1) }
        // A Unix socket whose backlog is full answers EAGAIN and never becomes writable: an error.
        guard result == 0 || errno == EINPROGRESS else { throw SystemError("connect \(address)") }
        return descriptor
    }

    private static func open(_ address: SocketAddress) throws(SystemError) -> FileDescriptor {
        let raw = socket(address.family, streamType, 0)
        guard raw >= 0 else { throw SystemError("socket") }
        return FileDescriptor(owning: raw)
    }

    /// The next connection, or the errno of the call (EAGAIN when there is none).
    package static func accept(
        _ listener: Int32, peer: inout SocketAddress
    ) -> (descriptor: Int32, code: Int32) {
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        let raw = withUnsafeMutablePointer(to: &storage) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                weir_accept4(
                    listener, $0, &length,
                    Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue))
            }
        }
        guard raw >= 0 else { return (-1, errno) }
        if let address = SocketAddress(&storage) { peer = address }
        return (raw, 0)
    }

    /// Small writes leave at once: heads and events are whole when they are written.
    package static func disableNagle(_ raw: Int32) {
        setOption(raw, Int32(IPPROTO_TCP), TCP_NODELAY)
    }

    private static func setOption(_ raw: Int32, _ level: Int32, _ name: Int32) {
        var one: Int32 = 1
        setsockopt(raw, level, name, &one, socklen_t(MemoryLayout<Int32>.size))
    }

    /// What became of a connect: 0, or the errno.
    package static func pendingError(_ raw: Int32) -> Int32 {
        var code: Int32 = 0
        var length = socklen_t(MemoryLayout<Int32>.size)
        guard getsockopt(raw, SOL_SOCKET, SO_ERROR, &code, &length) == 0 else { return errno }
        return code
    }

    /// The address that a listener got, with the port that the kernel chose for port 0.
    package static func localAddress(_ raw: Int32) -> SocketAddress? {
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        let result = withUnsafeMutablePointer(to: &storage) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(raw, $0, &length) }
        }
        return result == 0 ? SocketAddress(&storage) : nil
    }
}
