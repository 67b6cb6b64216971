import Foundation
import Synchronization

/// Ports of the loopback that nobody listens on.
enum Ports {
    private static let given = Mutex<Set<UInt16>>([])

    /// A port that the kernel just gave and got back; another one at each call.
    static func free() throws -> UInt16 {
        for _ in 0..<100 {
            let port = try boundOnce()
            if given.withLock({ $0.insert(port).inserted }) { return port }
        }
        throw TestProcess.Failed(description: "no free port in a hundred tries")
    }

    private static func boundOnce() throws -> UInt16 {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        guard descriptor >= 0 else { throw TestProcess.Failed(description: "socket: \(errno)") }
        defer { close(descriptor) }
        var address = loopback(port: 0)
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let result = withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, length) == 0 && getsockname(descriptor, $0, &length) == 0
            }
        }
        guard result else { throw TestProcess.Failed(description: "bind: \(errno)") }
        return UInt16(bigEndian: address.sin_port)
    }
}

func loopback(port: UInt16) -> sockaddr_in {
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
    return address
}
