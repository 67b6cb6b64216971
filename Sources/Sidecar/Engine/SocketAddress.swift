import CLinux
import Glibc

/// Where a socket listens or connects to: `127.0.0.1:8000`, `[::1]:80`, `unix:/run/agent.sock`.
/// Names are not resolved here; that blocks, and is done by whoever has a thread for it.
package enum SocketAddress: Hashable, Sendable, CustomStringConvertible {
    /// The address in host byte order.
    case ipv4(UInt32, port: UInt16)
    /// The 16 bytes of the address as two big-endian words.
    case ipv6(UInt64, UInt64, scope: UInt32, port: UInt16)
    case unix(String)

    /// `nil` for anything that is not an address with a port, or a path.
    package init?(_ text: some StringProtocol) {
        let text = String(text)
        if text.hasPrefix("unix:") {
            let path = String(text.dropFirst(5))
            // sockaddr_un holds 108 bytes with the terminator.
            guard !path.isEmpty, path.utf8.count < 108, !path.utf8.contains(0) else { return nil }
            self = .unix(path)
            return
        }
        guard let colon = text.lastIndex(of: ":"),
            let port = Self.port(text[text.index(after: colon)...])
        else { return nil }
        self.init(host: text[..<colon], port: port)
    }

    /// `nil` unless `host` is an IPv4 address or an IPv6 address, with or without brackets.
    package init?(host: some StringProtocol, port: UInt16) {
        var host = String(host)
        var bytes4 = in_addr()
        if inet_pton(AF_INET, host, &bytes4) == 1 {
            self = .ipv4(UInt32(bigEndian: bytes4.s_addr), port: port)
            return
        }
        if host.hasPrefix("[") && host.hasSuffix("]") { host = String(host.dropFirst().dropLast()) }
        var bytes6 = in6_addr()
        guard inet_pton(AF_INET6, host, &bytes6) == 1 else { return nil }
        let words = withUnsafeBytes(of: &bytes6) {
            (
                UInt64(bigEndian: $0.loadUnaligned(fromByteOffset: 0, as: UInt64.self)),
                UInt64(bigEndian: $0.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
            )
        }
        self = .ipv6(words.0, words.1, scope: 0, port: port)
    }

    private static func port(_ text: Substring) -> UInt16? {
        guard (1...5).contains(text.utf8.count), text.utf8.allSatisfy({ (48...57).contains($0) })
        else { return nil }
        return UInt16(text)
    }

    package static func loopback(port: UInt16) -> SocketAddress { .ipv4(0x7F00_0001, port: port) }

    /// Reads what the kernel wrote; `nil` for a family that we do not use.
    package init?(_ storage: inout sockaddr_storage) {
        switch Int32(storage.ss_family) {
        case AF_INET:
            let address = withUnsafeBytes(of: &storage) { $0.load(as: sockaddr_in.self) }
            self = .ipv4(
                UInt32(bigEndian: address.sin_addr.s_addr),
                port: UInt16(bigEndian: address.sin_port))
        case AF_INET6:
            let (address, high, low) = withUnsafeBytes(of: &storage) {
                (
                    $0.load(as: sockaddr_in6.self),
                    UInt64(bigEndian: $0.loadUnaligned(fromByteOffset: 8, as: UInt64.self)),
                    UInt64(bigEndian: $0.loadUnaligned(fromByteOffset: 16, as: UInt64.self))
                )
            }
            self = .ipv6(
                high, low, scope: address.sin6_scope_id, port: UInt16(bigEndian: address.sin6_port))
        case AF_UNIX: self = .unix("")
        default: return nil
        }
    }

    package var port: UInt16? {
        switch self {
        case .ipv4(_, let port), .ipv6(_, _, _, let port): port
        case .unix: nil
        }
    }

    package var isLoopback: Bool {
        switch self {
        case .ipv4(let address, _): address >> 24 == 127
        case .ipv6(let high, let low, _, _): high == 0 && low == 1
        case .unix: true
        }
    }

    package var family: Int32 {
        switch self {
        case .ipv4: AF_INET
        case .ipv6: AF_INET6
        case .unix: AF_UNIX
        }
    }

    package func withSockaddr<Result>(
        _ body: (UnsafePointer<sockaddr>, socklen_t) -> Result
    ) -> Result {
        var storage = sockaddr_storage()
        storage.ss_family = sa_family_t(family)
        let length = withUnsafeMutableBytes(of: &storage) { raw -> Int in
            switch self {
            case .ipv4(let address, let port):
                raw.storeBytes(of: port.bigEndian, toByteOffset: 2, as: UInt16.self)
                raw.storeBytes(of: address.bigEndian, toByteOffset: 4, as: UInt32.self)
                return MemoryLayout<sockaddr_in>.size
            case .ipv6(let high, let low, let scope, let port):
                raw.storeBytes(of: port.bigEndian, toByteOffset: 2, as: UInt16.self)
                raw.storeBytes(of: high.bigEndian, toByteOffset: 8, as: UInt64.self)
                raw.storeBytes(of: low.bigEndian, toByteOffset: 16, as: UInt64.self)
                raw.storeBytes(of: scope, toByteOffset: 24, as: UInt32.self)
                return MemoryLayout<sockaddr_in6>.size
            case .unix(let path):
                for (index, byte) in path.utf8.prefix(107).enumerated() { raw[2 + index] = byte }
                return MemoryLayout<sockaddr_un>.size
            }
        }
        return withUnsafePointer(to: &storage) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(length)) }
        }
    }

    /// The address without its port, as `X-Forwarded-For` carries it.
    package var host: String {
        switch self {
        case .ipv4(let address, _):
            return "\(address >> 24).\(address >> 16 & 255).\(address >> 8 & 255).\(address & 255)"
        case .ipv6(let high, let low, _, _):
            var bytes = (high.bigEndian, low.bigEndian)
            var text = [CChar](repeating: 0, count: 64)
            inet_ntop(AF_INET6, &bytes, &text, 64)
            return String(
                decoding: text.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
        case .unix: return "unix"
        }
    }

    package var description: String {
        switch self {
        case .ipv4(_, let port): "\(host):\(port)"
        case .ipv6(_, _, _, let port): "[\(host)]:\(port)"
        case .unix(let path): "unix:\(path)"
        }
    }
}
