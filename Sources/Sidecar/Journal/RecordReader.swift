import WeirCore
import WeirLedger
import WeirMeshProtocol

/// Reads records back for shipping, in the order in which they were written, from the files: the
/// page cache has what the mapping has. Blocks end where a segment, an incarnation or a run of
/// sequences ends, because names are numbered by the segment.
struct RecordReader {
    let directory: String

    /// Blocks of one incarnation with sequences above `sequence`, at most `max` of them.
    func blocks(
        of incarnation: Incarnation, after sequence: UInt64, max: Int,
        segments: [Journal.Segment], end: (segment: UInt64, offset: Int)?
    ) -> [RecordBlock] {
        var blocks: [RecordBlock] = []
        for segment in segments where blocks.count < max {
            let isCurrent = segment.index == end?.segment
            guard isCurrent || (segment.lastSequences[incarnation] ?? 0) > sequence else {
                continue
            }
            let path = directory + "/" + SegmentHeader.fileName(segment.index)
            guard let reading = SegmentReading(path: path) else { continue }
            read(
                reading, of: incarnation, after: sequence, max: max,
                until: isCurrent ? end?.offset ?? segment.end : segment.end, into: &blocks)
        }
        return blocks
    }

    private func read(
        _ reading: SegmentReading, of incarnation: Incarnation, after sequence: UInt64, max: Int,
        until end: Int, into blocks: inout [RecordBlock]
    ) {
        var names: [UInt32: String] = [:]
        var block = RecordBlock(incarnation: incarnation, names: [:], records: [])
        var offset = SegmentReading.start
        while offset < end, case .entry(let entry, let next) = reading.next(at: offset) {
            offset = next
            if case .name(let number, let text) = entry { names[number] = text }
            guard case .record(let record, _, _) = entry, record.incarnation == incarnation,
                record.sequence > sequence
            else { continue }
            let follows = block.records.last.map { $0.sequence + 1 == record.sequence } ?? true
            if !follows || block.records.count == MeshLimits.recordsPerBlockMax {
                blocks.append(block)
                guard blocks.count < max else { return }
                block = RecordBlock(incarnation: incarnation, names: [:], records: [])
            }
            for name in record.names { block.names[name] = names[name] }
            block.records.append(record)
        }
        if !block.records.isEmpty { blocks.append(block) }
    }
}

extension AttemptRecord {
    /// The interned names that it uses, without the empty one.
    fileprivate var names: [UInt32] {
        [subject, tier, tenant, agent, model, requestType].filter { $0 != 0 }
    }
}
