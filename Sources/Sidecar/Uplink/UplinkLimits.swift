import WeirMeshProtocol

/// Every limit and time of the link to the control plane, each with its reason.
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
    /// How long the last report and the last records may take when the process ends.
    package static let drainNanoseconds: UInt64 = 5_000_000_000
    package static let drainTurnNanoseconds: UInt64 = 5_000_000
    package static let retryNanoseconds: UInt64 = 200_000_000

    // MARK: Subjects

    package static let subjectsMax = 10_000
    package static let subjectLookupsMax = 128
    package static let subjectTimeToLiveMillisecondsMax: Int64 = 300_000
    /// How long a binding serves while the control plane is away: as long as a token usually lives.
    package static let subjectStaleNanoseconds: UInt64 = 3_600_000_000_000

    // MARK: Last good snapshot

    package static let snapshotBytesMax = 8 << 20
}
