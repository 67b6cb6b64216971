/// Deliberate mistakes, one for each hole that the ledger's rules close: the simulation plants each
/// and must find it. They stand beside the line that they break. Only the simulation's own build
/// (`WEIR_PLANE=ledger`) can plant one; everywhere else `isPlanted` is the constant `false`, and
/// the compiler removes what depends on it.
package enum PlantedFault: String, Sendable, CaseIterable {
    /// Rule 1: money that is set aside is granted again.
    case grantsWhatIsHeld
    /// Rule 1: a replica with an older policy moves the limit back.
    case olderPolicyMovesTheLimit
    /// Rule 2: a repeated acquire grants a second time.
    case repeatedAcquireGrantsAgain
    /// Rule 2: a late acquire of a forgotten lease grants it anew.
    case watermarkIsIgnored
    /// Rule 2: numbers of leases are used again after a crash.
    case leaseNumbersAreNotJournaled
    /// Rule 3: a late report moves counters back.
    case countersMoveBack
    /// Rule 3: what is set aside counts as free.
    case outstandingIsFree
    /// Rule 4: a lease out of the log admits, though nobody knows how long ago it was granted.
    case replayedLeasesAdmit
    /// Rule 4: an expired lease admits.
    case expiryIsIgnored
    /// Rule 4: expiry is timed from the answer, however late that came.
    case expiryCountsFromTheAnswer
    /// Rule 5: one answer, however old, disowns a lease.
    case oneAnswerDisowns
    /// Rule 6: the delegation goes out before its entry.
    case sentBeforeJournaled
    /// Rule 6: what a crash cut off costs nothing.
    case crashedAttemptsAreFree
    /// Children do not stay outstanding across a replay.
    case replayForgetsChildren
    /// Finals are forgotten when they are said, not when they are acknowledged.
    case finalsAreSaidOnce
    /// A delegation that comes twice is served twice.
    case delegationsRepeat
    /// Tokens in use are free again after a crash.
    case replayForgetsUses
    /// What was accepted is forgotten in a crash.
    case replayForgetsTheWindow
    /// A parent is told zero while the attempt runs.
    case zeroWhileOpen
    /// A child whose final is zero is accepted after all.
    case refusedIsAcceptedLater
    /// Rule 8: a copied journal releases money.
    case copiesRelease
    /// Rule 8: two successors adopt the same leases.
    case everybodyAdopts
    /// A write-off gives the money back instead of spending it.
    case writeOffFreesMoney
    /// Rule 9: a worst case counts as spent, so that users are refused who need only wait.
    case worstCaseIsDue
    /// Rule 9: idle money stays where it is.
    case idleMoneyStays
    /// Rule 9: a recall is not heard.
    case recallsAreIgnored
    /// Rule 10: leases are granted for a period that is over.
    case pastPeriodsGrant
    /// Rule 11: each holder lets all through that may be spent without a control plane.
    case standbyIsNotCounted
    /// Rule 12: a lease that was closed long ago is put back by a late report.
    case closedLeasesComeBack
    /// Rule 12: a new epoch grants before holders have reported what they have.
    case newEpochsGrantAtOnce
    /// Rule 12: what a silent holder may have is granted to others.
    case nothingIsWithheld
    /// Rule 12: a report from before the failover counts as one after it.
    case oldReportsCount
    /// Rule 12: a grant that a failover lost stays lost.
    case lostGrantsStayLost
}

#if WEIR_PLANTED_FAULTS
    // SAFETY: set once, before the simulation's threads begin.
    nonisolated(unsafe) package var plantedFault: PlantedFault?

    @inline(__always) package func isPlanted(_ fault: PlantedFault) -> Bool {
        plantedFault == fault
    }
#else
    @inline(__always) package func isPlanted(_ fault: PlantedFault) -> Bool { false }
#endif
