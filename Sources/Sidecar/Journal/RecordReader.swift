import WeirCore
import WeirLedger
import WeirMeshProtocol

/// Reads records back for shipping, in the order in which they were written, from the files: the
/// page cache has what the mapping has. Blocks end where a segment, an incarnation or a run of
/// sequences ends, because names are numbered by the segment.
///
/// It goes on where it stopped: records are shipped ten times a second, from a segment with room
/// for thousands.
struct RecordReader {
    private struct Place {
        /// Of the last record that was read; who asks for what follows another one starts anew.
        var sequence: UInt64
        var segment: UInt64 = 0
        var offset = SegmentReading.start
        /// Of this segment, as far as it was read.
        var names: [UInt32: String] = [:]
    }

    let directory: String
    private var places: [Incarnation: Place] = [:]

    init(directory: String) { self.directory = directory }

    /// Blocks of one incarnation with sequences above `sequence`, at most `max` of them.
    mutating func blocks(
        of incarnation: Incarnation, after sequence: UInt64, max: Int,
        segments: [Journal.Segment], end: (segment: UInt64, offset: Int)?
    ) -> [RecordBlock] {
        var blocks: [RecordBlock] = []
        var place = places[incarnation] ?? Place(sequence: sequence)
        if place.sequence != sequence { place = Place(sequence: sequence) }
        for segment in segments where blocks.count < max && segment.index >= place.segment {
            let isCurrent = segment.index == end?.segment
            guard isCurrent || (segment.lastSequences[incarnation] ?? 0) > sequence else {
                continue
            }
            if segment.index != place.segment {
                place = Place(sequence: sequence, segment: segment.index)
            }
            let until = isCurrent ? end?.offset ?? segment.end : segment.end
            let path = directory + "/" + SegmentHeader.fileName(segment.index)
            guard place.offset < until,
                let reading = SegmentReading(path: path, from: place.offset, until: until)
            else { continue }
            read(reading, of: incarnation, max: max, until: until, from: &place, into: &blocks)
        }
        place.sequence = blocks.last?.records.last?.sequence ?? sequence
        keep(place, of: incarnation, among: segments)
        return blocks
    }

    private mutating func keep(
        _ place: Place, of incarnation: Incarnation, among segments: [Journal.Segment]
    ) {
        places[incarnation] = place
        guard let oldest = segments.first?.index else { return }
        places = places.filter { $0.key == incarnation || $0.value.segment >= oldest }
    }

    private func read(
        _ reading: SegmentReading, of incarnation: Incarnation, max: Int, until end: Int,
        from place: inout Place, into blocks: inout [RecordBlock]
    ) {
        let sequence = place.sequence
        var block = RecordBlock(incarnation: incarnation, names: [:], records: [])
        while place.offset < end, case .entry(let entry, let next) = reading.next(at: place.offset)
        {
            if case .name(let number, let text) = entry { place.names[number] = text }
            if case .record(let record, _, _) = entry, record.incarnation == incarnation,
                record.sequence > sequence
            {
                let follows = block.records.last.map { $0.sequence + 1 == record.sequence } ?? true
                if !follows || block.records.count == MeshLimits.recordsPerBlockMax {
                    blocks.append(block)
                    // This one is the first of the next call.
                    guard blocks.count < max else { return }
                    block = RecordBlock(incarnation: incarnation, names: [:], records: [])
                }
                for name in record.names { block.names[name] = place.names[name] }
                block.records.append(record)
            }
            place.offset = next
        }
        if !block.records.isEmpty { blocks.append(block) }
    }
}

extension AttemptRecord {
    /// The interned names that it uses, without the empty one.
    fileprivate var names: [UInt32] {
        [subject, tier, tenant, agent, model, requestType, tags].filter { $0 != 0 }
    }
}
