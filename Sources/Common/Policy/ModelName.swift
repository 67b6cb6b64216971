/// Names of models as providers version them.
package enum ModelName {
    /// The name without the date or number of its version, by which a price table may list it:
    /// "gpt-4o-2024-08-06", "claude-sonnet-4-5-20250929", "claude-sonnet-4-5@20250929" and
    /// "gpt-4-0613" without what follows "gpt-4o", "claude-sonnet-4-5" and "gpt-4". `nil` where
    /// there is none.
    package static func withoutVersion(_ name: String) -> String? {
        let bytes = Array(name.utf8)
        for form in [
            Array("-dddd-dd-dd".utf8), Array("-dddddddd".utf8), Array("@dddddddd".utf8),
            Array("-dddd".utf8),
        ] where bytes.count > form.count {
            let matches = zip(bytes.suffix(form.count), form).allSatisfy { byte, expected in
                expected == UInt8(ascii: "d") ? (48...57).contains(byte) : byte == expected
            }
            if matches { return String(decoding: bytes.dropLast(form.count), as: UTF8.self) }
        }
        return nil
    }
}
