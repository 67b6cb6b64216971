import WeirCore

@testable import ControlPlaneStore

/// Three primaries of a cluster, each with as many replicas as are wanted.
final class ClusterFleet {
    let nodes: [RedisNode]
    private let tls: TestRedisTLS?

    init(replicas: Int = 0, tls: TestRedisTLS? = nil) throws {
        self.tls = tls
        nodes = try (0..<3 * (1 + replicas)).map { _ in
            try RedisNode.start(tls: tls) { ports, folder in
                RedisNode.durable(ports, folder, tls) + [
                    "--cluster-enabled", "yes", "--cluster-port", "\(ports.bus)",
                    "--cluster-node-timeout", "1000",
                ]
            }
        }
        try tool(
            ["create"] + nodes.map { "127.0.0.1:\($0.port)" }
                + ["--cluster-replicas", "\(replicas)", "--cluster-yes"])
        try eventually("the nodes agree on the slots") {
            nodes.allSatisfy { node in
                let info = (try? node.ask(["CLUSTER", "INFO"]))?.text ?? ""
                return info.contains("cluster_state:ok")
                    && info.contains("cluster_slots_ok:16384")
            }
        }
    }

    /// redis-cli's own tool for clusters.
    func tool(_ arguments: [String]) throws {
        let login =
            tls.map {
                [
                    "--tls", "--cacert", "\($0.folder)/ca.pem", "--cert",
                    "\($0.folder)/client.pem", "--key", "\($0.folder)/client-key.pem",
                ]
            } ?? []
        try runTool(["redis-cli"] + login + ["--cluster"] + arguments)
    }

    func url(scheme: String = "redis+cluster") -> String {
        "\(scheme)://127.0.0.1:\(nodes[0].port),127.0.0.1:\(nodes[1].port)"
    }

    func id(_ node: RedisNode) throws -> String { try node.ask(["CLUSTER", "MYID"]).text ?? "" }

    /// Who serves a slot now, as the first node knows.
    func owner(of slot: Int) throws -> RedisNode? {
        let reply = try nodes[0].ask(["CLUSTER", "SLOTS"])
        let owners = RedisSlots.owners(reply, asked: nodes[0].address)
        return nodes.first { $0.address == owners?[slot] }
    }

    /// Moves one slot as redis-cli does, with `meanwhile` while a part of its keys has moved.
    func move(
        _ slot: Int, to target: RedisNode, meanwhile: () async throws -> Void
    ) async throws {
        guard let source = try owner(of: slot), source !== target else { return }
        let (from, to) = (try id(source), try id(target))
        try target.ask(["CLUSTER", "SETSLOT", "\(slot)", "IMPORTING", from])
        try source.ask(["CLUSTER", "SETSLOT", "\(slot)", "MIGRATING", to])
        while true {
            let keys = try source.ask(["CLUSTER", "GETKEYSINSLOT", "\(slot)", "1"]).texts ?? []
            guard let key = keys.first else { break }
            try source.ask(["MIGRATE", "127.0.0.1", "\(target.port)", key, "0", "5000"])
            try await meanwhile()
        }
        for node in [target, source] + nodes where node !== target || node !== source {
            try node.ask(["CLUSTER", "SETSLOT", "\(slot)", "NODE", to])
        }
    }
}
