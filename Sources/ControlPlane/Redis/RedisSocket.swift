import Glibc

/// A non-blocking stream socket to Redis; closed when it goes.
struct RedisSocket: ~Copyable {
    enum ReadResult { case bytes(Int), wouldBlock, closed }

    let descriptor: Int32

    deinit { close(descriptor) }

    /// `nil` when nobody answers there. Tries every address of a name.
    static func connect(
        to address: RedisURL.Address, untilNanoseconds deadline: UInt64
    ) -> RedisSocket? {
        switch address {
        case .unix(let path): return connect(unixPath: path, deadline)
        case .tcp(let host, let port): return connect(host: host, port: port, deadline)
        }
    }

    private init(descriptor: Int32) { self.descriptor = descriptor }

    private static func connect(unixPath: String, _ deadline: UInt64) -> RedisSocket? {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let bytes = Array(unixPath.utf8)
        guard bytes.count < MemoryLayout.size(ofValue: address.sun_path) else { return nil }
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
        return withUnsafePointer(to: &address) { pointer in
            // SAFETY: every socket address may be looked at as the generic one.
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(family: AF_UNIX, $0, socklen_t(MemoryLayout<sockaddr_un>.size), deadline)
            }
        }
    }

    private static func connect(
        host: String, port: UInt16, _ deadline: UInt64
    ) -> RedisSocket? {
        var hints = addrinfo()
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        var found: UnsafeMutablePointer<addrinfo>?
        guard getaddrinfo(host, String(port), &hints, &found) == 0 else { return nil }
        // SAFETY: the list lives until `freeaddrinfo`, and nothing of it is kept.
        defer { freeaddrinfo(found) }
        var next = found
        while let entry = next {
            if let address = entry.pointee.ai_addr,
                let socket = connect(
                    family: entry.pointee.ai_family, address, entry.pointee.ai_addrlen, deadline)
            {
                var one: Int32 = 1
                // Pipelines are written whole; Nagle would only hold back their tails.
                setsockopt(socket.descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &one, 4)
                return socket
            }
            next = entry.pointee.ai_next
        }
        return nil
    }

    private static func connect(
        family: Int32, _ address: UnsafePointer<sockaddr>, _ length: socklen_t,
        _ deadline: UInt64
    ) -> RedisSocket? {
        let type = Int32(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue)
        let descriptor = socket(family, type, 0)
        guard descriptor >= 0 else { return nil }
        let result = RedisSocket(descriptor: descriptor)
        guard Glibc.connect(descriptor, address, length) == 0 || errno == EINPROGRESS else {
            return nil
        }
        guard result.wait(for: POLLOUT, untilNanoseconds: deadline) else { return nil }
        var failure: Int32 = 0
        var size = socklen_t(4)
        getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &failure, &size)
        guard failure == 0 else { return nil }
        return result
    }

    /// `false` when the time is over first.
    borrowing func wait(for events: Int32, untilNanoseconds deadline: UInt64) -> Bool {
        while true {
            let now = MonotonicClock.nowNanoseconds
            guard now < deadline else { return false }
            var entry = pollfd(fd: descriptor, events: Int16(events), revents: 0)
            if poll(&entry, 1, Int32(clamping: (deadline - now) / 1_000_000 + 1)) > 0 {
                return true
            }
        }
    }

    borrowing func read(into buffer: UnsafeMutableRawBufferPointer) -> ReadResult {
        while true {
            let count = recv(descriptor, buffer.baseAddress, buffer.count, 0)
            if count > 0 { return .bytes(count) }
            if count == 0 { return .closed }
            switch errno {
            case EINTR: continue
            case EAGAIN: return .wouldBlock
            default: return .closed
            }
        }
    }

    /// How many bytes the kernel took; `nil` when the connection is gone.
    borrowing func write(_ bytes: ArraySlice<UInt8>) -> Int? {
        while true {
            let count = bytes.withUnsafeBytes {
                // A peer that went away is an answer here, not a signal.
                send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            if count >= 0 { return count }
            switch errno {
            case EINTR: continue
            case EAGAIN: return 0
            default: return nil
            }
        }
    }
}
