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
