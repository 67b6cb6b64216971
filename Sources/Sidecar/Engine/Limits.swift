import WeirCore
import WeirMeshProtocol

/// The data plane's. All limits of the sidecar stand in this file, each with its reason; those of
/// the ledger's tables are `LedgerLimits`, because the store keeps them too. What is a matter of
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
    /// From here on those go that keep bytes for a peer that does not do its part (`MemoryHolder`),
    /// so that honest requests find something left.
    package static let relievedAboveBytes = 48 * 1024 * 1024
    /// Those that come from here on, which is as much as has to go.
    package static let holdersKnownAboveBytes = 24 * 1024 * 1024
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
    /// The request target (414 above it). RFC 9112 §3 wants request lines of 8,000 bytes taken.
    package static let targetBytesMax = 8 * 1024
    package static let fieldsMax = 100
    /// The line that opens a chunk: 16 hex digits and extensions. A longer one is an attack on the
    /// ratio of framing to data.
    package static let chunkLineBytesMax = 256
    /// All extensions of one body; legitimate senders use none.
    package static let chunkExtensionBytesMax = 4096
    /// What an OPTIONS request may still pass through behind us, whatever its `Max-Forwards` says.
    package static let forwardsMax: UInt64 = 100
    package static let trailerBytesMax = 8 * 1024
    /// Informational responses of one exchange that are passed on.
    package static let informationalMax = 8
    /// Fields that an interceptor may add to one message, and their bytes.
    package static let addedFieldBytesMax = 8 * 1024
    package static let addedFieldsMax = 48
    /// Unread request body that is read and thrown away so that a refusal reaches a client that is
    /// still sending (closing with unread data makes the kernel send a reset, RFC 9112 §9.6).
    package static let drainBytesMax = 256 * 1024
    /// The slowest sender of a body that is waited for beyond `bodyProgressNanoseconds`: less than
    /// any network that still works, more than an attacker with ten thousand connections likes.
    package static let bodyBytesPerSecondMin: UInt64 = 500
    /// The largest body that an interceptor may ask to have held.
    package static let heldBodyBytesMax = 16 * 1024 * 1024
    /// A local handler's whole request body, unless it says less.
    package static let localBodyBytesMax = 4 * 1024 * 1024
    /// Bytes of a streamed local answer that wait for a slow client before the writer is suspended.
    package static let localAnswerPendingBytes = 64 * 1024
    /// A response that `HTTPClient` reads as a whole, unless the caller says less.
    package static let clientResponseBytesMax = 8 * 1024 * 1024

    // MARK: Upstream

    /// Endpoints of one agent that are balanced over; what a name resolves to beyond it waits.
    package static let endpointsPerAgent = 64
    /// Connections of one loop to one endpoint, busy and idle.
    package static let connectionsPerEndpoint = 1024
    package static let idleConnectionsPerEndpoint = 128
    /// Requests that wait for a connection slot of one cluster.
    package static let waitingPerCluster = 1024
    /// Replays of one request after a reused connection died without an answer.
    package static let staleRetriesMax = 2
    /// Replays of one request that upstreams said they had not begun (RFC 9113 §8.7).
    package static let refusedRetriesMax = 4
    /// The beginning of a request's body that is kept for such a replay, until the answer begins.
    /// Beyond it a refused request has failed.
    package static let replayBytesMax = 64 * 1024

    // MARK: HTTP/2 to upstreams

    /// Streams of one connection, where the peer allows more.
    package static let streamsPerConnection = 256
    /// Requests that wait for one connection whose peer has not said yet how many it takes.
    package static let streamsExpected = 100
    /// Of a request's body, waiting for the peer's window; the client is paused above it.
    package static let streamQueueBytes = 64 * 1024
    /// What a stream may send ahead of its client, which is also what it can make us hold.
    package static let upstreamStreamWindowBytes: Int32 = 128 * 1024
    /// Always open, because each stream is bounded for itself and must not stop the others: this
    /// is how often we have to say so.
    package static let upstreamConnectionWindowBytes: Int32 = 4 * 1024 * 1024
    /// Answers to PING and SETTINGS that a peer can make us queue before it is taken for an attack.
    package static let outboundAcknowledgementsMax = 64
    /// Between two PINGs without another frame of the peer's: servers of gRPC close a connection
    /// that sends more than one in five minutes.
    package static let lonePingNanoseconds: UInt64 = 310_000_000_000

    // MARK: Calls of the agent's own

    /// Requests at an agent that may make calls of their own.
    package static let outboundRunsMax = 65_536
}

/// How long each phase of an exchange may take, in nanoseconds. `UInt64.max` means no limit.
package struct Timeouts: Sendable {
    /// From the first byte of a request (or the accept) to the end of its head: slowloris.
    package var headNanoseconds: UInt64 = 10_000_000_000
    /// From the accept to the end of the TLS handshake. Upstream it is a part of the connect.
    package var handshakeNanoseconds: UInt64 = 10_000_000_000
    /// Between two reads of a request body (and in all, from a sender that is slower than
    /// `Limits.bodyBytesPerSecondMin`), and between two successful writes to the client.
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
    /// An idle HTTP/2 connection to an upstream. Long, because a GOAWAY tells of its end in time.
    package var http2IdleNanoseconds: UInt64 = 60_000_000_000
    /// How long an upstream's end of an HTTP/2 connection with open streams is silent before a PING
    /// asks whether it lives, and how long its answer may take.
    package var upstreamSilenceNanoseconds: UInt64 = 10_000_000_000
    package var upstreamPongNanoseconds: UInt64 = 5_000_000_000
    /// The same of a client that waits for answers. It holds a place at the agent meanwhile, which
    /// nobody else gets if its machine is gone; but a phone may sleep for some seconds.
    package var clientSilenceNanoseconds: UInt64 = 30_000_000_000
    package var clientPongNanoseconds: UInt64 = 20_000_000_000
    /// How long unread request body is thrown away after a refusal before the connection closes.
    package var lingerNanoseconds: UInt64 = 2_000_000_000
    /// How long a drain waits for exchanges before it closes what is left.
    package var drainNanoseconds: UInt64 = 30_000_000_000
    /// The answer to our PING, after which a draining HTTP/2 connection names its last stream.
    package var drainRoundTripNanoseconds: UInt64 = 1_000_000_000

    package init() {}
}

/// Those of TLS.
package enum TLSLimits {
    /// Handshakes of one loop that are under way. Each holds some 50 KB until it is over; above the
    /// limit one of them is closed.
    package static let handshakesPerLoop = 1024
    /// How long a session may be resumed, where no certificate ends before.
    package static let ticketSeconds: Int64 = 7_200
    /// How long tickets are sealed with the same key. Who steals it can read what was sent with
    /// resumed sessions of TLS 1.2 for so long.
    package static let ticketKeySeconds: Int64 = 43_200
    /// A SPIFFE id is at most 2,048 bytes (SPIFFE-ID §2.3).
    package static let identityBytesMax = 2_049
    /// A certificate chain, a key or a bundle of authorities: the public ones are 0.3 MB.
    package static let fileBytesMax = 4 << 20
    /// How often the files are looked at.
    package static let watchNanoseconds: UInt64 = 1_000_000_000
}

/// What one HTTP/2 session may hold, with the reason for each number. Flow control is joined: the
/// peer may send only what somebody has consumed, so these windows are also memory limits.
package struct HTTP2Limits: Sendable {
    /// Streams that a peer may have open towards us; a client accepts none (no server push).
    package var concurrentStreamsMax: UInt32 = 100
    /// Name and value lengths plus 32 for each field (RFC 9113 §6.5.2); above it the stream is
    /// reset.
    package var headerListBytesMax = 16 * 1024
    package var fieldsMax = 100
    /// What one stream may send ahead of its consumer: a whole policy projection in few turns.
    package var streamWindowBytes: Int32 = 256 * 1024
    /// What all streams together may send ahead.
    package var connectionWindowBytes: Int32 = 1024 * 1024
    /// Bytes of request bodies that wait for the peer's window.
    package var outgoingBytesMax = 16 * 1024 * 1024
    /// Answers to PING and SETTINGS that a peer can make us queue before it is taken for an attack.
    package var outboundAcknowledgementsMax = 64

    package init() {}
}

/// What a client may do to us over HTTP/2. Windows are memory: bytes within them may arrive while
/// the upstream takes none. Whoever goes over a limit that honest clients do not come near hears
/// GOAWAY with ENHANCE_YOUR_CALM.
package enum HTTP2ServerLimits {
    /// Streams of one connection (SETTINGS_MAX_CONCURRENT_STREAMS).
    package static let streamsMax: UInt32 = 100
    /// What one request body may send ahead of its upstream: 10 MB/s at a round trip of 12 ms.
    package static let streamWindowBytes: Int32 = 128 * 1024
    /// What all request bodies of one connection may send ahead.
    package static let connectionWindowBytes: Int32 = 512 * 1024
    /// Response bytes that wait in one stream before its upstream is paused: what one read brings,
    /// and not two.
    package static let streamPendingBytes = Limits.readBytes / 2
    /// Below it the upstream goes on.
    package static let streamResumeBytes = 8 * 1024
    /// Response bytes of one connection that wait for its windows. A hundred stalled streams with
    /// one read each, and whole local answers beside them.
    package static let connectionPendingBytesMax = 8 * 1024 * 1024
    /// From here on a stream's bytes are framed at once, and not at the end of the turn.
    package static let framedAtOnceBytes = 16 * 1024
    /// Responses longer than this, or of unknown length, share the connection with others of their
    /// kind frame by frame (RFC 9218 §4.2); shorter ones leave one after the other.
    package static let incrementalAboveBytes: Int64 = 32 * 1024
    /// Frames that wait to be sent, beside DATA: answers to PING and SETTINGS, resets, heads. Full
    /// when somebody sends what has to be answered and does not read the answers.
    package static let outgoingFramesMax = 1024
    /// Of those, acknowledgements.
    package static let acknowledgementsMax = 256
    /// CONTINUATION frames of one block; the largest head that we take needs two.
    package static let continuationsMax = 8
    /// Fields of one block after their decompression (RFC 9113 §6.5.2), stored or not. A bomb of
    /// HPACK makes megabytes of one frame.
    package static let listBytesMax = 8 * Limits.headBytesMax
    package static let settingsMax = 32
    /// Streams of one connection of which it is remembered who ended them: more than there can be
    /// at once, because frames for those that we ended may still be on their way.
    package static let closedStreamsMax = 256

    /// Streams that end before their response, by anyone's fault: rapid reset. A client that gives
    /// up a hundred requests at once passes.
    package static let resets = FrameAllowance(burst: 300, perSecond: 30)
    /// Frames without use to us: PING, SETTINGS, PRIORITY, RST_STREAM, empty DATA, refused ones.
    /// Those of unknown types cost their bytes only, and are not counted.
    package static let idleFrames = FrameAllowance(burst: 1000, perSecond: 100)
    /// WINDOW_UPDATE frames, beside two for each DATA frame that was sent.
    package static let windowUpdates = FrameAllowance(burst: 2000, perSecond: 500)
    package static let windowUpdatesPerData = 2

    /// Stream objects that a worker keeps for reuse.
    package static let freeStreamsMax = 256
}

/// Limits of the write-ahead log.
package enum JournalLimits {
    package static let segmentBytes = 1 << 20
    /// Mapped segments count as memory: the current one, the ready ones, and one just filled.
    package static let segmentsReady = 2
    package static let segmentsMappedMax = 4
    /// What the ending of one open attempt may take: its record, and names that the segment lacks.
    package static let settlementBytes = 640
    /// A longer name is cut: names are for people, and money never hangs on one.
    package static let nameBytesMax = 200
    /// Names of one segment that are found again; more are written again.
    package static let namesMax = 2_048
    package static let syncMilliseconds: Int = 200
    /// Standalone: `--journal-keep`. In a mesh: above it, admission stops.
    package static let bytesKept: Int64 = 1 << 30
    /// Endings that wait for a disk that is full; as many as can be open.
    package static let deferredMax = 32_768
    /// How long a snapshot that needs another segment waits for the helper.
    package static let segmentWaitMilliseconds = 100
}

/// The link's to the control plane, with its times.
package enum UplinkLimits {
    // MARK: Connection

    package static let connectNanoseconds: UInt64 = 2_000_000_000
    /// From the connected socket to the peer's SETTINGS: something listens that is no control
    /// plane.
    package static let greetingNanoseconds: UInt64 = 2_000_000_000
    /// Silence before a PING is sent. The watch brings a bookmark every second, so a healthy link
    /// is never silent for this long.
    package static let silenceNanoseconds: UInt64 = 3_000_000_000
    /// Silence after the PING before the connection is given up.
    package static let pongNanoseconds: UInt64 = 2_000_000_000
    /// First and longest pause between attempts; each is drawn between half of it and all of it, so
    /// that a thousand sidecars do not return in step.
    package static let backoffNanoseconds: UInt64 = 50_000_000
    package static let backoffNanosecondsMax: UInt64 = 2_000_000_000
    /// A connection that was open for this long was a good one: the next pause is short again.
    package static let stableNanoseconds: UInt64 = 5_000_000_000
    package static let replicasMax = 16
    /// Bytes that wait for the socket. Requests are bounded one by one; this bounds them together.
    package static let socketQueueBytesMax = 32 * 1024 * 1024

    // MARK: Requests

    package static let requestNanoseconds: UInt64 = 5_000_000_000
    package static let requestsInFlightMax = 256
    /// An answer is at most a message.
    package static let answerBytesMax = 4 << 20
    /// A line of the watch holds a whole projection.
    package static let lineBytesMax = 4 << 20
    /// Between two joins, and after a join that was refused: a wrong token stays wrong.
    package static let joinPauseNanoseconds: UInt64 = 1_000_000_000
    /// A watch without a line for this long is dead: three bookmarks were missed.
    package static let watchIdleNanoseconds =
        3 * UInt64(MeshLimits.bookmarkMilliseconds) * 1_000_000

    // MARK: Ledger

    /// Demands that arrive within this time travel together.
    package static let leaseBatchNanoseconds: UInt64 = 1_000_000
    package static let reportNanoseconds: UInt64 = 1_000_000_000
    /// How soon after a change a report goes out: finals are what parents wait for.
    package static let reportSoonNanoseconds: UInt64 = 20_000_000
    package static let recordNanoseconds: UInt64 = 100_000_000
    /// How often a gateway asks what the mesh looks like.
    package static let stateNanoseconds: UInt64 = 1_000_000_000
    /// How long the last report and the last records may take when the process ends.
    package static let drainNanoseconds: UInt64 = 5_000_000_000
    package static let drainTurnNanoseconds: UInt64 = 5_000_000
    package static let retryNanoseconds: UInt64 = 200_000_000
    /// Reports go out each second; without an answer to any of them for this long the control plane
    /// is lost, and tiers say what becomes of their users' requests. A stalled one is given up
    /// after the silence and the PING, and the next replica needs time to take over.
    package static let lostNanoseconds: UInt64 = 6_000_000_000

    // MARK: Subjects

    package static let subjectsMax = 10_000
    package static let subjectLookupsMax = 128
    /// Of them for API keys, which anybody can make up.
    package static let keyLookupsMax = 64
    package static let subjectTimeToLiveMillisecondsMax: Int64 = 300_000
    /// How long a binding serves while the control plane is away: as long as a token usually lives.
    package static let subjectStaleNanoseconds: UInt64 = 3_600_000_000_000

    // MARK: Users' own requests

    /// Of those that pass through to the control plane at once; leases and reports keep the rest of
    /// the connection's requests.
    package static let userCallsMax = 64
    /// A user waits no longer than this for the control plane.
    package static let userCallNanoseconds: UInt64 = 3_000_000_000

    // MARK: Last good snapshot

    package static let snapshotBytesMax = 8 << 20
}

/// The gateway's. Those of connections and bodies are the data plane's.
package enum GatewayLimits {
    /// A token is read before its caller is known, so its size is bounded before its text.
    package static let tokenBytesMax = 8 << 10
    package static let tokenDepthMax = 8
    package static let tokenValuesMax = 512
    /// What a record keeps of a name: a longer subject's records could not be told from another's.
    package static let claimBytesMax = JournalLimits.nameBytesMax
    package static let rolesMax = 32
    /// Clocks of an issuer and of a gateway differ; beyond this a token is expired, or from the
    /// future.
    package static let clockLeewaySeconds: Int64 = 30

    /// `weir_` and 32 bytes in base64url, and room for longer ones.
    package static let apiKeyBytesMax = 128

    package static let requestBytesMax = 1 << 20
    /// Of an agent's answer to a step: it is parsed and becomes a part of ours.
    package static let agentAnswerBytesMax = 4 << 20
    /// An event of a stream that may be the one that carries the usage.
    package static let usageEventBytesMax = 64 << 10
    package static let answerDepthMax = 64
    package static let answerValuesMax = 100_000
    /// Calls for one step, over all agents and endpoints.
    package static let attemptsPerStepMax = 8

    /// Rule 9: how long a request waits for money that is about to come back, from when the store
    /// said that all of it is set aside. A recall is four messages through Redis.
    package static let contendedNanoseconds: UInt64 = 250_000_000
    /// How far the store's clock may be ahead of this one, in minutes begun.
    package static let minutesAheadMax = 2
    /// For a lease that was asked for: a few round trips to the control plane.
    package static let leaseNanoseconds: UInt64 = 1_000_000_000
    /// What callers are told who are not served without the control plane.
    package static let lostRetrySeconds: Int64 = 2
    /// Connecting to a sidecar, which is near.
    package static let connectNanoseconds: UInt64 = 1_000_000_000

    /// Answers kept for all agents together, and the largest of them.
    package static let cacheBytesMax = 256 << 20
    package static let cachedAnswerBytesMax = 1 << 20
    /// Accounts of which it is remembered that operators were told of their share.
    package static let warnedAccountsMax = 10_000

    /// One test of an agent, which the mesh pays for.
    package static let agentTestCostMax = NanoUSD(100_000_000)
    package static let agentTestNanoseconds: UInt64 = 30_000_000_000
    package static let idempotencyKeyBytesMax = 255
    /// How long a claim outlives the deadline of its request: the answer has to be stored.
    package static let idempotencyMarginMilliseconds: Int64 = 5_000
    /// How often an answer is tried to be stored, and the pause in between.
    package static let idempotencyTriesMax = 6
    package static let idempotencyRetryNanoseconds: UInt64 = 1_000_000_000

    package static let timeoutMillisecondsMax: Int64 = 300_000
    /// Silence on a stream of events after which a comment is sent. Proxies give up after 30 s or
    /// more.
    package static let heartbeatNanoseconds: UInt64 = 15_000_000_000
    /// Analyses at once where `MAX_CONCURRENT_REQUESTS` is silent.
    package static let analysesDefaultMax = 100
    /// How long a request waits for one of their places.
    package static let queueMilliseconds: Int64 = 1_000
    /// A tier leaves one place in so many free for each priority above its own.
    package static let headroomShare = 10
    package static let originsMax = 64
    /// How deep agents may call one another for one request.
    package static let callDepthMax: UInt8 = 3
    /// Sidecars whose calls are told apart from repeated ones.
    package static let callersMax = 4_096
    /// How far such calls may come out of order; a multiple of 64.
    package static let callWindow = 4_096
    /// Users whose rates are counted at once; nobody is forgotten before the own bucket is full.
    package static let ratedUsersMax = 65_536
}
