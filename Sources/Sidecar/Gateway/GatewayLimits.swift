/// Every limit of the gateway in one place. Those of connections and bodies are the engine's.
package enum GatewayLimits {
    /// A token is read before its caller is known, so its size is bounded before its text.
    package static let tokenBytesMax = 8 << 10
    package static let tokenDepthMax = 8
    package static let tokenValuesMax = 512
    package static let claimBytesMax = 256
    package static let rolesMax = 32
    /// Clocks of an issuer and of a gateway differ; beyond this a token is expired, or from the
    /// future.
    package static let clockLeewaySeconds: Int64 = 30

    package static let requestBytesMax = 1 << 20
    /// Of an agent's answer to a step: it is parsed and becomes a part of ours.
    package static let agentAnswerBytesMax = 4 << 20
    package static let answerDepthMax = 64
    package static let answerValuesMax = 100_000
    /// Calls for one step, over all agents and endpoints.
    package static let attemptsPerStepMax = 8
    /// Endpoints of one agent that a step tries when nothing can be sent to one.
    package static let endpointsPerAgentMax = 2

    /// Rule 9: how long a request waits for money that is about to come back.
    package static let contendedNanoseconds: UInt64 = 50_000_000
    /// For a lease that was asked for: a few round trips to the control plane.
    package static let leaseNanoseconds: UInt64 = 1_000_000_000
    /// Connecting to a sidecar, which is near.
    package static let connectNanoseconds: UInt64 = 1_000_000_000

    package static let timeoutMillisecondsMax: Int64 = 300_000
    /// Analyses at once where `MAX_CONCURRENT_REQUESTS` is silent.
    package static let analysesDefaultMax = 100
    package static let originsMax = 64
    /// Users whose rates are counted at once; nobody is forgotten before the own bucket is full.
    package static let ratedUsersMax = 65_536
}
