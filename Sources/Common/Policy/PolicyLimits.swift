/// The sizes that a policy may have. They keep a snapshot within the memory of a sidecar and a
/// projection within one message of the mesh; the counts are an order of magnitude above what a
/// large mesh needs.
package enum PolicyLimits {
    package static let documentsMax = 4_096
    /// Further problems are counted, not listed.
    package static let problemsMax = 200

    /// A DNS label, so that agents can be Kubernetes services; request types and tiers also take
    /// underscores.
    package static let nameBytesMax = 63
    package static let modelIDBytesMax = 128
    package static let pathBytesMax = 1_024
    package static let promptBytesMax = 32 << 10
    package static let textBytesMax = 1_024

    package static let modelsPerAgentMax = 64
    package static let aliasesPerModelMax = 32
    package static let versionsPerAgentMax = 16
    package static let healthWeightMax: Int64 = 1_000
    package static let fallbacksMax = 8
    package static let stepsMax = 32
    package static let agentsPerStepMax = 8
    package static let inputsPerStepMax = 64
    package static let tiersMax = 64
    package static let cacheEntriesMax: Int64 = 100_000
    package static let cacheBytesMax: Int64 = 256 << 20
    package static let tagsPerTierMax = 1_000
    package static let warningsPerTierMax = 8
    package static let pricesPerTableMax = 4_096
    package static let priceStepsMax = 8
    package static let usagePointerTokensMax = 6
    package static let usageKeyBytesMax = 32

    package static let schemaDepthMax = 16
    package static let schemaNodesMax = 1_024
    package static let schemaEnumMax = 256
    package static let schemaAlternativesMax = 16

    package static let durationMillisecondsMax: Int64 = 24 * 3_600_000
    package static let ratePerSecondMax = 1_000_000.0
    package static let burstMax: Int64 = 1_000_000
    package static let requestsAtOnceMax: Int64 = 1_000_000
    package static let requestBodyBytesMax: Int64 = 64 << 20
    package static let outputTokensMax: Int64 = 10_000_000
    package static let dailyRequestsMax: Int64 = 1_000_000_000_000
    package static let requestsPerMinuteMax: Int64 = 1_000_000_000
    package static let tokensPerMinuteMax: Int64 = 1_000_000_000_000
}
