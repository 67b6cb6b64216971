import CPQ

/// Parameters in libpq's binary form: one run of bytes, and where each value lies in it.
struct PostgreSQLParameters {
    /// Types by their numbers in pg_type, which are the same in every database.
    enum TypeID {
        static let bytes: Oid = 17
        static let integer64: Oid = 20
        static let integer32: Oid = 23
        static let text: Oid = 25
    }

    private(set) var types: [Oid] = []
    private var lengths: [Int32] = []
    private var offsets: [Int?] = []
    private var bytes: [UInt8] = []

    var count: Int32 { Int32(types.count) }

    init(_ values: [SQLValue]) {
        for value in values { add(value) }
        // An empty array may have no address, and NULL would mean NULL.
        bytes.append(0)
    }

    private mutating func add(_ value: SQLValue) {
        let start = bytes.count
        switch value {
        case .null: types.append(0)
        case .integer(let integer):
            types.append(TypeID.integer64)
            withUnsafeBytes(of: integer.bigEndian) { bytes += $0 }
        case .text(let text):
            types.append(TypeID.text)
            bytes += text.utf8
        case .blob(let blob):
            types.append(TypeID.bytes)
            bytes += blob
        }
        lengths.append(Int32(bytes.count - start))
        offsets.append(value == .null ? nil : start)
    }

    func withPointers<T>(
        _ body: ([UnsafePointer<CChar>?], [Int32], [Int32]) -> T
    ) -> T {
        bytes.withUnsafeBytes { raw in
            // SAFETY: `bytes` is not empty, every offset lies within, and libpq reads the values
            // only during the call.
            let base = raw.baseAddress?.assumingMemoryBound(to: CChar.self)
            let pointers = offsets.map { offset in offset.flatMap { base?.advanced(by: $0) } }
            return body(pointers, lengths, Array(repeating: 1, count: types.count))
        }
    }
}

/// What PostgreSQL answered; cleared when it is dropped.
struct PostgreSQLResult: ~Copyable {
    // SAFETY: taken over in `init`, cleared in `deinit`, never handed out.
    private let raw: OpaquePointer

    init(_ raw: OpaquePointer) { self.raw = raw }

    deinit { PQclear(raw) }

    var changedRows: String { String(cString: PQcmdTuples(raw)) }

    var sqlState: String? {
        // PG_DIAG_SQLSTATE, a character constant.
        PQresultErrorField(raw, Int32(UInt8(ascii: "C"))).map { String(cString: $0) }
    }

    func rows() throws(ArchiveError) -> [[SQLValue]] {
        let columns = PQnfields(raw)
        var rows: [[SQLValue]] = []
        rows.reserveCapacity(Int(PQntuples(raw)))
        for row in 0..<PQntuples(raw) {
            var values: [SQLValue] = []
            values.reserveCapacity(Int(columns))
            for column in 0..<columns { values.append(try value(row, column)) }
            rows.append(values)
        }
        return rows
    }

    private func value(_ row: Int32, _ column: Int32) throws(ArchiveError) -> SQLValue {
        guard PQgetisnull(raw, row, column) == 0, let start = PQgetvalue(raw, row, column) else {
            return .null
        }
        // SAFETY: libpq says how long the value is, and keeps it until the result is cleared; it
        // is copied here.
        let bytes = UnsafeRawBufferPointer(
            start: start, count: Int(PQgetlength(raw, row, column)))
        switch PQftype(raw, column) {
        case PostgreSQLParameters.TypeID.integer64 where bytes.count == 8:
            return .integer(Int64(bigEndian: bytes.loadUnaligned(as: Int64.self)))
        case PostgreSQLParameters.TypeID.integer32 where bytes.count == 4:
            return .integer(Int64(Int32(bigEndian: bytes.loadUnaligned(as: Int32.self))))
        case PostgreSQLParameters.TypeID.text: return .text(String(decoding: bytes, as: UTF8.self))
        case PostgreSQLParameters.TypeID.bytes: return .blob([UInt8](bytes))
        // What a function without a result answers.
        case _ where bytes.isEmpty: return .null
        case let type: throw .database("a column of type \(type) is not expected")
        }
    }
}
