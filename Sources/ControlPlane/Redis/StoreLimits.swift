import WeirMeshProtocol

/// Every limit of the control plane's storage, in one place. Times of protocols between machines in
/// milliseconds, times of this process in nanoseconds.
package enum StoreLimits {
    // MARK: Redis

    /// Commands that wait for Redis or for its answer; more are refused at once.
    package static let redisCommandsMax = 4_096
    package static let redisQueuedBytesMax = 64 << 20
    /// Commands sent and not yet answered on one connection.
    package static let redisInFlightMax = 512
    /// Calls of a script that one caller sends in one pipeline.
    package static let redisPipelineMax = 256
    package static let redisReadBytes = 64 << 10
    package static let redisConnectNanoseconds: UInt64 = 1_000_000_000
    /// From queueing to answer, unless the caller says otherwise.
    package static let redisCommandNanoseconds: UInt64 = 2_000_000_000
    /// A connection whose oldest command has waited this long is dead.
    package static let redisStallNanoseconds: UInt64 = 10_000_000_000
    package static let redisBackoffFirstNanoseconds: UInt64 = 20_000_000
    package static let redisBackoffMaxNanoseconds: UInt64 = 1_000_000_000
    /// Hosts that a URL may name: Sentinels, or nodes to ask for a cluster's others.
    package static let redisSeedsMax = 16
    /// A Sentinel that takes longer to connect or to answer is passed over.
    static let redisSentinelNanoseconds: UInt64 = 500_000_000
    /// A connection to a primary that is younger than this is not given up on suspicion.
    static let redisDistrustNanoseconds: UInt64 = 2_000_000_000
    /// Primaries that one cluster may have.
    static let redisPrimariesMax = 256
    /// Redirections of one command in a row; after these it waits as for a moving slot.
    static let redisRedirectsMax = 8
    /// How long a command waits for a slot that is being moved, or for a node's successor, before
    /// it is sent again.
    static let redisAgainNanoseconds: ClosedRange<UInt64> = 10_000_000...40_000_000
    /// A map of the slots that was asked for within this time is not asked for again.
    static let redisMapFreshNanoseconds: UInt64 = 20_000_000
    /// A subscription that hears nothing for this long asks with a PING.
    package static let redisSubscriptionIdleNanoseconds: UInt64 = 5_000_000_000
    /// Hints that nobody has taken yet; the newest are kept, because a hint only says "look".
    package static let redisHintsMax = 256

    // MARK: Ledger

    /// Rows of leases that one holder may have in one account: open ones and closed ones that its
    /// closed watermark has not passed.
    package static let leasesPerHolderMax = 1_024
    /// How long an account is kept after its period: long enough to settle and to explain.
    package static let accountKeepMilliseconds: Int64 = 100 * 86_400_000
    /// The same of a minute's: until holders have forgotten it, too.
    package static let minuteAccountKeepMilliseconds: Int64 = 60_000
    /// How long an account of one run is kept after its last change.
    package static let runAccountKeepMilliseconds: Int64 = 30 * 86_400_000
    /// How long a report of a holder that says nothing new of an account is left out, and of how
    /// many accounts that is remembered.
    package static let unchangedNanoseconds: UInt64 = 2_500_000_000
    package static let unchangedAccountsMax = 65_536
    /// How long a contended account asks its holders for what is idle.
    package static let recallMilliseconds: Int64 = 2_000
    package static let recalledHoldersMax = 64
    /// How long finals wait for a parent that does not come back.
    package static let finalsKeepSeconds: Int64 = 40 * 86_400
    /// How long questions of parents wait for whom they are for; parents ask again and again.
    package static let inquiriesKeepSeconds: Int64 = 60
    /// A new epoch over an old mesh grants nothing for this long, so that live holders report
    /// first.
    package static let epochQuietMilliseconds: Int64 = 15_000
    /// Holders that a new epoch misses at most; one call of Redis takes them.
    static let missingMax = 4_096
    /// How long a grant waits for replicas to have it.
    package static let replicaWaitMilliseconds: Int64 = 250
    /// Lives that may hold something at once.
    static let holdersMax = 100_000
    package static let holdersPageMax = 500
    /// Accounts whose leases one page of holders reads; one holder may have more.
    static let holdersPageAccounts = 20_000
    /// Accounts restored from the archive in one step.
    package static let restorePage = 1_024
    /// How long the result of looking at Redis's persistence settings holds.
    package static let persistenceCheckNanoseconds: UInt64 = 5_000_000_000

    // MARK: Policy, subjects, sidecars

    package static let policyBytesMax = 8 << 20
    package static let policyHistoryMax = 200
    package static let noteBytesMax = 4_096
    package static let nameBytesMax = 256
    /// A user's or a tenant's name: what a record keeps of it whole, and gateways take of a token.
    package static let userBytesMax = 200
    /// How long a gateway may go on with a subject's binding; it asks again in the background
    /// after half of it, so that who came within a minute waits for nothing. Whatever changes a
    /// binding is said at once (`PolicyHub.subjectChanged`).
    package static let bindingMilliseconds: Int64 = 120_000
    /// An agent's sidecar that has not reported for this long is not given to gateways.
    package static let endpointFreshMilliseconds = MeshLimits.silentMilliseconds
    /// A sidecar that has not reported for this long leaves the list.
    package static let sidecarKeepMilliseconds: Int64 = 24 * 3_600_000
    package static let sidecarsListedMax = 4_096
    package static let problemsKeptMax = 64
    package static let joinTokenMillisecondsMax: Int64 = 7 * 86_400_000
    package static let reasonBytesMax = 1_024
    package static let apiKeysPerUserMax = 100
    package static let apiKeysMax = 100_000
    package static let apiKeysListedMax = 1_000
    package static let apiKeyMillisecondsMax: Int64 = 10 * 366 * 86_400_000
    package static let adminActionsMax = 10_000
    package static let adminActionBytesMax = 8_192

    // MARK: Idempotency

    package static let idempotencyMilliseconds: Int64 = 24 * 3_600_000
    /// A claim whose owner died is taken over when it ends: after the deadline of its request, and
    /// never later than this.
    package static let idempotencyClaimMillisecondsMax: Int64 = 310_000

    // MARK: Archive

    /// Jobs that wait for the archive's thread; more are refused at once.
    package static let archiveJobsMax = 256
    /// A job that waited longer for a connection is refused.
    package static let archiveWaitNanoseconds: UInt64 = 5_000_000_000
    package static let archiveBusyMilliseconds: Int32 = 5_000
    static let databaseConnectSeconds = 5
    /// The longest statement, and the longest silence of a server that has something to answer.
    static let databaseStatementMilliseconds = 15_000
    /// A connection that was idle longer is asked whether it still answers.
    static let databaseIdleCheckNanoseconds: UInt64 = 1_000_000_000
    static let databaseBackoffFirstNanoseconds: UInt64 = 100_000_000
    static let databaseBackoffMaxNanoseconds: UInt64 = 5_000_000_000
    package static let usageRowsMax = 10_000
    package static let recordsPageMax = 1_000
    /// Rows of an agent's history: about a month by hour.
    package static let performanceRowsMax = 100_000
    /// Statements that one connection keeps prepared.
    static let preparedStatementsMax = 128
    package static let reconcileRowsMax = 100_000
    /// Accounts in one step of reconciling.
    package static let reconcilePage = 500
    /// Accounts of a month that are looked for in Redis.
    package static let reconcileAccountsMax = 1_000_000
    /// Keys that one step of looking through Redis takes.
    static let redisScanCount = 1_000
    /// Of an account that differs: holders whose leases are read, the newest first.
    static let reconcileHoldersMax = 512
    /// Of an account that differs: leases that are compared, and children that are listed.
    package static let reconcileLeasesMax = 200
    package static let reconcileChildrenMax = 50
    /// The longest that records of one lease may lie apart: a lease ends within a day.
    static let reconcileLeaseMilliseconds: Int64 = 2 * 86_400_000
}
