import Glibc

@testable import ControlPlaneStore

/// A primary, two replicas and three Sentinels that watch them.
final class SentinelFleet {
    static let name = "weir"
    /// The first one is the primary.
    let nodes: [RedisNode]
    let sentinels: [RedisNode]

    init(tls: TestRedisTLS? = nil) throws {
        let primary = try RedisNode.server(tls: tls)
        let replication = ["--replicaof", "127.0.0.1", "\(primary.port)"]
        nodes = [
            primary, try RedisNode.server(tls: tls, replication),
            try RedisNode.server(tls: tls, replication),
        ]
        let port = primary.port
        sentinels = try (0..<3).map { _ in
            try RedisNode.start(tls: tls) { ports, folder in
                try Self.writeConfiguration(folder, watching: port, ports, tls)
                return ["redis-server", "\(folder)/sentinel.conf", "--sentinel"]
            }
        }
        try eventually("replicas and Sentinels know each other") {
            (try? primary.info("connected_slaves")) == "2"
                && sentinels.allSatisfy { $0.knows(replicas: "2", sentinels: "2") }
        }
    }

    private static func writeConfiguration(
        _ folder: String, watching port: UInt16, _ ports: RedisNode.Ports, _ tls: TestRedisTLS?
    ) throws {
        let listens = tls.map { tls in
            let arguments = tls.serverArguments("server")
            let lines = stride(from: 0, to: arguments.count, by: 2).map {
                "\(arguments[$0].dropFirst(2)) \(arguments[$0 + 1])\n"
            }
            return "port 0\ntls-port \(ports.port)\n" + lines.joined()
        }
        let text =
            (listens ?? "port \(ports.port)\n") + """
                bind 127.0.0.1
                dir \(folder)
                sentinel monitor \(name) 127.0.0.1 \(port) 2
                sentinel down-after-milliseconds \(name) 500
                sentinel failover-timeout \(name) 3000

                """
        guard let file = fopen("\(folder)/sentinel.conf", "w") else {
            throw PrivateRedis.Failure("no configuration can be written")
        }
        fputs(text, file)
        fclose(file)
    }

    /// For the control plane.
    func url(scheme: String = "redis+sentinel", login: String = "") -> String {
        let hosts = sentinels.map { "127.0.0.1:\($0.port)" }.joined(separator: ",")
        return "\(scheme)://\(login)\(hosts)/\(Self.name)"
    }
}

extension RedisNode {
    fileprivate func knows(replicas: String, sentinels: String) -> Bool {
        let fields = (try? ask(["SENTINEL", "MASTER", SentinelFleet.name]))?.fields ?? [:]
        return fields["num-slaves"] == replicas && fields["num-other-sentinels"] == sentinels
            && fields["flags"] == "master"
    }
}
