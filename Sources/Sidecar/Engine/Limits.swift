/// Every limit of the sidecar's data plane, in one place, each with its reason. What is a matter of
/// deployment is also a field of `Timeouts` or of `ServerConfiguration`, whose defaults stand here.
package enum Limits {
    // MARK: Event loop

    /// Events taken by one `epoll_wait`: enough that a busy loop reads the clock rarely, few enough
    /// that timers and the mailbox are not starved.
    package static let eventsPerWait = 256
    /// Connections taken from one listener before other events get their turn.
    package static let acceptsPerTurn = 64
    /// How long a listener rests when the process has no descriptors left. Without the rest, an
    /// edge-triggered listener would either spin or never hear of the waiting connections again.
    package static let acceptRestNanoseconds: UInt64 = 50_000_000
    /// Connections that the kernel completes ahead of us.
    package static let listenBacklog: Int32 = 1024
    /// Registrations of one loop; an index must fit in the epoll word beside its generation.
    package static let registrationsPerLoop = 1 << 20

    // MARK: Memory

    /// One read of a socket. Also bounds what a slow receiver can leave with us per direction,
    /// because the source is paused as soon as anything is left over.
    package static let readBytes = 32 * 1024
    /// The scratch in which a head and the body that came with it are joined to one write: a whole
    /// read, a rewritten head, and the framing of the chunks in it.
    package static let writeScratchBytes = 96 * 1024
    /// Bytes lent to connections of one loop at any time. At the limit new requests are refused
    /// with 503 `overloaded`, and what is in flight goes on.
    package static let lentBytesPerLoop = 64 * 1024 * 1024
    /// Slabs kept for reuse by one loop; what comes back above it goes back to the system.
    package static let cachedBytesPerLoop = 1024 * 1024
    /// Reads of one connection before the others get their turn.
    package static let readsPerTurn = 8
    /// Connections of one loop, downstream. Above it a connection is closed on arrival.
    package static let connectionsPerLoop = 16_384

    // MARK: HTTP messages

    /// Request line and header section together (431 above it). Field ranges are 16-bit numbers,
    /// so this must stay below 65,536.
    package static let headBytesMax = 32 * 1024
    /// The request target (414 would be the status; we answer 431 like the rest of the head).
    package static let targetBytesMax = 8 * 1024
    package static let fieldsMax = 100
    /// The line that opens a chunk: 16 hex digits and extensions. A longer one is an attack on the
    /// ratio of framing to data.
    package static let chunkLineBytesMax = 256
    /// All extensions of one body; legitimate senders use none.
    package static let chunkExtensionBytesMax = 4096
    package static let trailerBytesMax = 8 * 1024
    /// Informational responses of one exchange that are passed on.
    package static let informationalMax = 8
    /// Fields that an interceptor may add to one message, and their bytes.
    package static let addedFieldBytesMax = 8 * 1024
    package static let addedFieldsMax = 48
    /// Unread request body that is read and thrown away so that a refusal reaches a client that is
    /// still sending (closing with unread data makes the kernel send a reset, RFC 9112 §9.6).
    package static let drainBytesMax = 256 * 1024
    /// The largest body that an interceptor may ask to have held.
    package static let heldBodyBytesMax = 16 * 1024 * 1024
    /// A local handler's whole request body, unless it says less.
    package static let localBodyBytesMax = 4 * 1024 * 1024
    /// Bytes of a streamed local answer that wait for a slow client before the writer is suspended.
    package static let localAnswerPendingBytes = 64 * 1024
    /// A response that `HTTPClient` reads as a whole, unless the caller says less.
    package static let clientResponseBytesMax = 8 * 1024 * 1024

    // MARK: Upstream

    /// Connections of one loop to one endpoint, busy and idle.
    package static let connectionsPerEndpoint = 1024
    package static let idleConnectionsPerEndpoint = 128
    /// Requests that wait for a connection slot of one cluster.
    package static let waitingPerCluster = 1024
    /// Replays of one request after a reused connection died without an answer.
    package static let staleRetriesMax = 2
}

/// How long each phase of an exchange may take, in nanoseconds. `UInt64.max` means no limit.
package struct Timeouts: Sendable {
    /// From the first byte of a request (or the accept) to the end of its head: slowloris.
    package var headNanoseconds: UInt64 = 10_000_000_000
    /// Between two reads of a request body, and between two successful writes to the client.
    package var bodyProgressNanoseconds: UInt64 = 30_000_000_000
    /// An idle connection between requests. Longer than most clients keep theirs, so that they
    /// close first and no request meets a closing connection.
    package var keepAliveNanoseconds: UInt64 = 75_000_000_000
    package var connectNanoseconds: UInt64 = 2_000_000_000
    /// From the end of the request to the head of the response.
    package var firstByteNanoseconds: UInt64 = 60_000_000_000
    /// Between two reads of a response: a stream that stalls.
    package var streamIdleNanoseconds: UInt64 = 60_000_000_000
    /// The whole exchange, unless the interceptor sets another.
    package var totalNanoseconds: UInt64 = 600_000_000_000
    /// An idle upstream connection. Shorter than the keep-alive of usual servers (uvicorn 5 s,
    /// Node 5 s), so that we close first.
    package var upstreamIdleNanoseconds: UInt64 = 4_000_000_000
    /// How long unread request body is thrown away after a refusal before the connection closes.
    package var lingerNanoseconds: UInt64 = 2_000_000_000
    /// How long a drain waits for exchanges before it closes what is left.
    package var drainNanoseconds: UInt64 = 30_000_000_000

    package init() {}
}
