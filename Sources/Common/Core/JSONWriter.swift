extension JSONValue {
    /// The compact text of the document.
    package var bytes: [UInt8] {
        var output: [UInt8] = []
        write(to: &output)
        return output
    }

    package var text: String { String(decoding: bytes, as: UTF8.self) }

    /// One spelling for equal documents: keys sorted by their bytes. What hashes are taken of.
    package var canonicalBytes: [UInt8] {
        var output: [UInt8] = []
        write(to: &output, sortsKeys: true)
        return output
    }

    /// Indented by two spaces, for people.
    package var prettyText: String {
        var output: [UInt8] = []
        write(to: &output, indent: 0)
        return String(decoding: output, as: UTF8.self)
    }

    package func write(to output: inout [UInt8], sortsKeys: Bool = false) {
        switch self {
        case .null: output.append(contentsOf: "null".utf8)
        case .bool(let bool): output.append(contentsOf: (bool ? "true" : "false").utf8)
        case .number(let number): output.append(contentsOf: number.literal.utf8)
        case .string(let string): JSON.writeString(string, to: &output)
        case .array(let array):
            output.append(UInt8(ascii: "["))
            for (position, element) in array.enumerated() {
                if position > 0 { output.append(UInt8(ascii: ",")) }
                element.write(to: &output, sortsKeys: sortsKeys)
            }
            output.append(UInt8(ascii: "]"))
        case .object(let object):
            output.append(UInt8(ascii: "{"))
            let members =
                sortsKeys
                ? object.members.sorted { $0.key.utf8.lexicographicallyPrecedes($1.key.utf8) }
                : object.members
            for (position, member) in members.enumerated() {
                if position > 0 { output.append(UInt8(ascii: ",")) }
                JSON.writeString(member.key, to: &output)
                output.append(UInt8(ascii: ":"))
                member.value.write(to: &output, sortsKeys: sortsKeys)
            }
            output.append(UInt8(ascii: "}"))
        }
    }

    private func write(to output: inout [UInt8], indent: Int) {
        func newLine(_ level: Int) {
            output.append(UInt8(ascii: "\n"))
            output.append(contentsOf: repeatElement(UInt8(ascii: " "), count: level * 2))
        }
        switch self {
        case .array(let array) where !array.isEmpty:
            output.append(UInt8(ascii: "["))
            for (position, element) in array.enumerated() {
                if position > 0 { output.append(UInt8(ascii: ",")) }
                newLine(indent + 1)
                element.write(to: &output, indent: indent + 1)
            }
            newLine(indent)
            output.append(UInt8(ascii: "]"))
        case .object(let object) where !object.isEmpty:
            output.append(UInt8(ascii: "{"))
            for (position, member) in object.members.enumerated() {
                if position > 0 { output.append(UInt8(ascii: ",")) }
                newLine(indent + 1)
                JSON.writeString(member.key, to: &output)
                output.append(contentsOf: ": ".utf8)
                member.value.write(to: &output, indent: indent + 1)
            }
            newLine(indent)
            output.append(UInt8(ascii: "}"))
        case .null, .bool, .number, .string, .array, .object: write(to: &output)
        }
    }
}

extension JSON {
    package static func writeString(_ string: String, to output: inout [UInt8]) {
        var string = string
        output.append(UInt8(ascii: "\""))
        string.withUTF8 { bytes in
            // Runs that need no escape, which most strings are as a whole, are copied at once.
            var rest = UnsafeRawBufferPointer(bytes)
            while true {
                let count = JSONRun.count(rest, stopsAtDelete: true)
                output.append(contentsOf: UnsafeRawBufferPointer(rebasing: rest[..<count]))
                guard count < rest.count else { return }
                writeEscape(rest[count], to: &output)
                rest = UnsafeRawBufferPointer(rebasing: rest[(count + 1)...])
            }
        }
        output.append(UInt8(ascii: "\""))
    }

    private static func writeEscape(_ byte: UInt8, to output: inout [UInt8]) {
        output.append(UInt8(ascii: "\\"))
        switch byte {
        case 0x0A: output.append(UInt8(ascii: "n"))
        case 0x0D: output.append(UInt8(ascii: "r"))
        case 0x09: output.append(UInt8(ascii: "t"))
        case 0..<0x20, 0x7F:
            let digits: StaticString = "0123456789abcdef"
            output.append(contentsOf: "u00".utf8)
            output.append(digits.utf8Start[Int(byte >> 4)])
            output.append(digits.utf8Start[Int(byte & 15)])
        default: output.append(byte)
        }
    }
}
