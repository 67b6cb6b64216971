/// Why a command has no answer. `maybeExecuted` tells apart what certainly did nothing from what
/// may have been carried out: only the caller knows whether asking again is safe.
package enum RedisError: Error, Hashable, Sendable {
    /// Too much waits already; nothing was sent.
    case queueFull
    case timeout(maybeExecuted: Bool)
    case connectionLost(maybeExecuted: Bool)
    /// Redis answered with an error: "WRONGTYPE …".
    case server(String)
    /// An answer of another shape than this command has.
    case unexpectedReply(String)
    /// The URL is wrong.
    case invalidURL(String)
    case closed

    package var maybeExecuted: Bool {
        switch self {
        case .timeout(let maybe), .connectionLost(let maybe): maybe
        case .unexpectedReply: true
        case .queueFull, .server, .invalidURL, .closed: false
        }
    }
}
