import WeirMeshProtocol

/// Every limit of the control plane's listeners.
package enum ServerLimits {
    /// A policy bundle as text, JSON or YAML.
    package static let policyBytesMax = 4 << 20
    package static let smallBodyBytesMax = 64 << 10
    package static let meshBodyBytesMax = MeshLimits.messageBytesMax
    /// A token in a file is one line; more is the wrong file.
    package static let tokenBytesMax = 4 << 10
    package static let tokenBytesMin = 16

    package static let historyEntriesMax = 200
    package static let historyEntriesDefault = 20
    /// Changed fields that a diff lists for one document.
    package static let fieldChangesMax = 100
    package static let usageDaysMax: Int64 = 366
    package static let auditPageMax = 500
    package static let auditPageDefault = 50
    package static let holdersPageDefault = 100
    /// Accounts of one holder that an answer lists.
    package static let holderAccountsMax = 1_000
    /// Records that suggestions are looked for in.
    package static let suggestionRecordsMax = 10_000
    package static let noteBytesMax = 1_024

    /// Watches at once; a mesh has fewer sidecars.
    package static let watchersMax = 10_000
    package static let headerBytesMax = 16 << 10
    package static let headerCountMax = 100
    /// An idle connection of the API listener ends after this.
    package static let idleSeconds: Int64 = 60
    /// How long a stop waits for answers in flight.
    package static let shutdownSeconds: Int64 = 5

    /// How often a replica looks for a policy or endpoints that another one has changed.
    package static let pollMilliseconds: Int64 = 1_000
    /// The pauses between attempts to reach the store.
    package static let retryMilliseconds: Int64 = 250
    package static let retryMillisecondsMax: Int64 = 5_000
    /// Sessions whose identity is remembered, so that not every message asks the store.
    package static let sessionsMax = 20_000
}
