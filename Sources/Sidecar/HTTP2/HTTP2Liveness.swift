/// When the silent peer of a connection with open streams is asked by a PING whether it lives (RFC
/// 9113 §6.7), and when it is given up. Anything that comes is a sign of life, so that the answer
/// itself need not be looked for. Times are nanoseconds of the loop's clock.
struct HTTP2Liveness {
    enum Step: Equatable {
        /// Nothing is due before so many nanoseconds.
        case wait(UInt64)
        /// A PING is due, and the next step so many nanoseconds later.
        case ping(UInt64)
        case giveUp
    }

    let silence: UInt64
    let patience: UInt64
    /// Between two PINGs without another frame of the peer's than their answers.
    let lonePause: UInt64

    private var lastHeard: UInt64
    private var asked: UInt64?
    private var lonePing: UInt64?

    init(silence: UInt64, patience: UInt64, lonePause: UInt64 = 0, now: UInt64) {
        self.silence = silence
        self.patience = patience
        self.lonePause = lonePause
        lastHeard = now
    }

    mutating func heard(now: UInt64) { lastHeard = now }

    /// A frame came that is no answer to a PING.
    mutating func frameCame() { lonePing = nil }

    /// What is due where streams wait for the peer.
    mutating func step(now: UInt64) -> Step {
        let isSilentFor = now - lastHeard
        if let asked, asked >= lastHeard {
            let waited = now - asked
            return waited < patience ? .wait(patience - waited) : .giveUp
        }
        if isSilentFor < silence { return .wait(silence - isSilentFor) }
        if let lonePing, now - lonePing < lonePause { return .wait(lonePause - (now - lonePing)) }
        asked = now
        lonePing = now
        return .ping(min(patience, silence))
    }
}
