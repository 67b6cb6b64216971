/// What a process may do with the log that it finds (rule 8), decided from what was seen of it.
package struct JournalCircumstances: Hashable, Sendable {
    /// Where the log was written and where it lies now.
    package struct Place: Hashable, Sendable {
        package var bootID: String
        package var device: UInt64
        package var inode: UInt64
        package init(bootID: String, device: UInt64, inode: UInt64) {
            self.bootID = bootID
            self.device = device
            self.inode = inode
        }
    }

    package var written: Place
    package var found: Place
    package var isLocked: Bool
    /// Replay ended at the log's end, not at a bad entry.
    package var isClean: Bool

    package init(written: Place, found: Place, isLocked: Bool, isClean: Bool) {
        self.written = written
        self.found = found
        self.isLocked = isLocked
        self.isClean = isClean
    }

    private var isWhole: Bool {
        isLocked && isClean && written == found || isPlanted(.copiesRelease)
    }

    /// Whether what the log holds free may be given back. A copy, a restored backup, a log of
    /// another machine, of another boot or with a bad entry may lack spending that its original
    /// saw; it may only raise what was consumed.
    ///
    /// `isAdopted`: the store made this process the successor, by compare-and-set.
    package func mayRelease(isAdopted: Bool) -> Bool {
        isAdopted && isWhole
    }

    /// Whether the process may go on as the same incarnation while no control plane can be asked:
    /// nobody else can have the log, and nothing of it is missing, so that numbers of children,
    /// leases and records go on without a gap and without one used twice.
    package var mayResume: Bool { isWhole }
}
