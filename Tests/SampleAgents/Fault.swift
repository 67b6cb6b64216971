/// How an agent is told to misbehave: `KIND` or `KIND:ARGUMENT`.
enum Fault: Equatable, Sendable {
    /// Answers correctly, so many milliseconds later.
    case slow(milliseconds: Int)
    /// An error status with a JSON body, after the usual latency.
    case fail(status: Int)
    /// 429 with `Retry-After`.
    case rateLimited(retryAfterSeconds: Int)
    /// Reads the request and never sends a byte.
    case stall
    /// Sends the head and never a byte of the body.
    case stallAfterHead
    /// Cuts the connection after so many bytes of the body; nil: in its middle.
    case die(afterBytes: Int?)
    /// Says that it used more output tokens than it was allowed.
    case wrongUsage
    /// Leaves `usage` out.
    case noUsage
    /// A body that is not JSON, under a head that says it is.
    case garbage
    /// Two `Content-Length` fields that disagree.
    case garbageHead
    /// Work goes on, but `/health` answers 503.
    case unhealthy
    /// No fault: asks llama2-7b first, as its own sidecar allows it, whose outbound listener is on
    /// this port of the loopback.
    case call(port: Int)

    /// Stalls end by themselves, with a cut connection, so that no test can leave one behind.
    static let stallSecondsMax = 60

    static let help = """
        slow:MS, fail[:STATUS], 429[:RETRY_AFTER_SECONDS], stall, stall-head, die[:BYTES], \
        wrong-usage, no-usage, garbage, garbage-head, unhealthy, call:PORT, none
        """

    init?(_ text: some StringProtocol) {
        let parts = text.split(separator: ":", maxSplits: 1)
        guard let kind = parts.first else { return nil }
        let argument = parts.count == 2 ? Int(parts[1]) : nil
        // An argument that is there must be a number that the kind can use.
        guard parts.count == 1 || argument.map({ (0...3_600_000).contains($0) }) == true else {
            return nil
        }
        self.init(kind: String(kind), argument: argument)
    }

    init?(kind: String, argument: Int?) {
        switch kind {
        case "slow":
            guard let argument else { return nil }
            self = .slow(milliseconds: argument)
        case "fail":
            guard (400...599).contains(argument ?? 500) else { return nil }
            self = .fail(status: argument ?? 500)
        case "429": self = .rateLimited(retryAfterSeconds: argument ?? 1)
        case "die": self = .die(afterBytes: argument)
        case "call":
            guard let argument, (1...65_535).contains(argument) else { return nil }
            self = .call(port: argument)
        default:
            guard argument == nil, let plain = Self.withoutArgument[kind] else { return nil }
            self = plain
        }
    }

    private static let withoutArgument: [String: Fault] = [
        "stall": .stall, "stall-head": .stallAfterHead, "wrong-usage": .wrongUsage,
        "no-usage": .noUsage, "garbage": .garbage, "garbage-head": .garbageHead,
        "unhealthy": .unhealthy,
    ]
}
