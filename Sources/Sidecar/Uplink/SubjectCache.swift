import SidecarCore
import WeirMeshProtocol

/// Bindings that the control plane gave, for as long as it said. Bounded: at the limit the oldest
/// goes. A binding that has run out still serves while the control plane is away, because promise 4
/// is that the data path survives it. Pure: time comes in.
struct SubjectCache {
    private struct Entry {
        var binding: SubjectBinding
        var refreshFromNanoseconds: UInt64
        var freshUntilNanoseconds: UInt64
        var staleUntilNanoseconds: UInt64
        var order: UInt64
    }

    private let entriesMax: Int
    private var entries: [SubjectRequest: Entry] = [:]
    /// In order of insertion; an entry that was replaced meanwhile is skipped by its number.
    private var queue: [(key: SubjectRequest, order: UInt64)] = []
    private var queueHead = 0
    private var nextOrder: UInt64 = 0

    init(entriesMax: Int = UplinkLimits.subjectsMax) { self.entriesMax = entriesMax }

    var count: Int { entries.count }

    func fresh(_ key: SubjectRequest, now: UInt64) -> SubjectBinding? {
        guard let entry = entries[key], now < entry.freshUntilNanoseconds else { return nil }
        return entry.binding
    }

    /// Half of its time is over: it is asked about while it still serves, so that users who stay
    /// never wait for it.
    func isDue(_ key: SubjectRequest, now: UInt64) -> Bool {
        entries[key].map { now >= $0.refreshFromNanoseconds } ?? true
    }

    func stale(_ key: SubjectRequest, now: UInt64) -> SubjectBinding? {
        guard let entry = entries[key], now < entry.staleUntilNanoseconds else { return nil }
        return entry.binding
    }

    mutating func insert(_ key: SubjectRequest, _ binding: SubjectBinding, now: UInt64) {
        let milliseconds = min(
            max(binding.timeToLiveMilliseconds, 0), UplinkLimits.subjectTimeToLiveMillisecondsMax)
        let end = Self.end(of: binding, now: now)
        nextOrder += 1
        entries[key] = Entry(
            binding: binding,
            refreshFromNanoseconds: min(end, now + UInt64(milliseconds) * 500_000),
            freshUntilNanoseconds: min(end, now + UInt64(milliseconds) * 1_000_000),
            staleUntilNanoseconds: min(end, now + UplinkLimits.subjectStaleNanoseconds),
            order: nextOrder)
        queue.append((key, nextOrder))
        while entries.count > entriesMax { dropOldest() }
        compact()
    }

    /// The control plane no longer knows this subject, or refused it.
    mutating func remove(_ key: SubjectRequest) { entries[key] = nil }

    /// The control plane says that these users have changed.
    mutating func forget(_ users: Set<String>) {
        entries = entries.filter { !users.contains($0.value.binding.user) }
    }

    /// Anybody may have changed: each is asked about before the next request is served.
    mutating func expireAll() {
        for key in entries.keys { entries[key]?.freshUntilNanoseconds = 0 }
    }

    /// After this the credential itself is worth nothing.
    private static func end(of binding: SubjectBinding, now: UInt64) -> UInt64 {
        guard let milliseconds = binding.validForMilliseconds else { return .max }
        let (length, overflow) = UInt64(max(0, milliseconds)).multipliedReportingOverflow(
            by: 1_000_000)
        return overflow ? .max : now.addingReportingOverflow(length).partialValue
    }

    private mutating func dropOldest() {
        guard queueHead < queue.count else { return }
        let oldest = queue[queueHead]
        queueHead += 1
        if entries[oldest.key]?.order == oldest.order { entries[oldest.key] = nil }
    }

    /// Refreshes of the same few subjects would make the queue grow: rebuild it when most of it is
    /// history.
    private mutating func compact() {
        guard queue.count > 2 * max(entriesMax, 16) else { return }
        queue = entries.map { ($0.key, $0.value.order) }.sorted { $0.order < $1.order }
        queueHead = 0
    }
}
