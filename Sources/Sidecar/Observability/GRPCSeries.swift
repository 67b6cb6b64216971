import Glibc
import WeirCore

/// Counts calls of gRPC of one agent by method and status, for one worker. Methods come from
/// callers, who can make up any number of them: one gets a label of its own when the agent has
/// answered it other than with UNIMPLEMENTED, up to a limit; the rest is `other`.
struct GRPCSeries {
    private struct Method {
        let name: [UInt8]
        var series: [Metrics.Series?]
    }

    /// Well above what one service declares, and far below what a family may hold.
    static let methodsMax = 50
    private static let nameBytesMax = 128

    private let metrics: SidecarMetrics
    private let agent: String
    private let shard: MetricsShard
    /// The first is `other`.
    private var methods: [Method]

    init(_ metrics: SidecarMetrics, shard: MetricsShard, agent: String) {
        self.metrics = metrics
        self.agent = agent
        self.shard = shard
        methods = [Self.method(Array("other".utf8))]
    }

    private static func method(_ name: [UInt8]) -> Method {
        Method(name: name, series: Array(repeating: nil, count: GRPCStatus.allCases.count))
    }

    /// `path` is `/package.Service/Method`; `isServed` says that the agent answered the call.
    mutating func ended(_ path: UnsafeRawBufferPointer, _ status: GRPCStatus, isServed: Bool) {
        let index = index(of: path, learns: isServed && status != .unimplemented)
        let known = methods[index].series[Int(status.rawValue)]
        let series = known ?? make(methods[index].name, status)
        methods[index].series[Int(status.rawValue)] = series
        shard.add(series)
    }

    private mutating func index(of path: UnsafeRawBufferPointer, learns: Bool) -> Int {
        let name = UnsafeRawBufferPointer(rebasing: path.dropFirst())
        for index in 1..<max(methods.count, 1) where methods[index].name.elementsEqual(name) {
            return index
        }
        guard learns, methods.count <= Self.methodsMax, Self.isMethod(name) else { return 0 }
        methods.append(Self.method(Array(name)))
        return methods.count - 1
    }

    /// `package.Service/Method`, and nothing that a label would have to escape.
    private static func isMethod(_ name: UnsafeRawBufferPointer) -> Bool {
        guard !name.isEmpty, name.count <= nameBytesMax else { return false }
        let slashes = name.count { $0 == UInt8(ascii: "/") }
        return slashes == 1
            && name.allSatisfy {
                ASCII.isToken($0) || $0 == UInt8(ascii: "/")
            }
    }

    private func make(_ name: [UInt8], _ status: GRPCStatus) -> Metrics.Series {
        metrics.registry.series(
            metrics.grpcCalls, [agent, String(decoding: name, as: UTF8.self), status.name])
    }
}
