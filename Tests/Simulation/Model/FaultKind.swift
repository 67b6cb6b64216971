/// What goes wrong in a history. Each history counts what really happened to it: a message that was
/// lost on its way, not the plan to lose one.
package enum FaultKind: Int, CaseIterable, Sendable {
    case messageLost, messageRepeated, messageDelayed, messageOvertaken
    case partition, messageCutOff
    case crash, crashBetweenSteps, crashWithinACommit
    case restartInTheSameLife, restartAsSuccessor
    case powerLoss, journalLost, journalRestoredFromACopy, copyStartedAfterAdoption
    case pause, pausePastExpiry
    case gatewayClockStep, storeClockStep
    case limitLowered, limitRaised, olderPolicyInUse
    case periodRollOver, minuteOver, leaseExpired
    case agentCrash, agentPowerLoss, agentJournalLost
    case childNeverArrived, inquiryAnswered
    case recall, writeOff, journalCompacted, spentOnStandby
    case storeFailover, grantLost, grantPutBack, grantedBesideTheSilent
}

/// How often each kind happened.
package struct FaultCounts: Sendable {
    private var counts = [Int](repeating: 0, count: FaultKind.allCases.count)

    package init() {}

    package subscript(_ kind: FaultKind) -> Int { counts[kind.rawValue] }

    mutating func hit(_ kind: FaultKind, _ times: Int = 1) { counts[kind.rawValue] += times }

    package mutating func add(_ other: FaultCounts) {
        for kind in FaultKind.allCases { counts[kind.rawValue] += other[kind] }
    }
}
