/// What a request is labelled with, so that its cost can be charged back: a project, a campaign, a
/// team (`team:search`). Few, short and of plain characters, because they become names of accounts,
/// of rows in reports and of fields in records. One set has one spelling.
package struct Tags: Hashable, Sendable {
    package static let countMax = 8
    package static let nameBytesMax = 64
    /// As much as a record keeps of one name, and a record has all tags as one.
    package static let textBytesMax = 200
    /// By convention the rest of such a tag is the name of a team.
    package static let teamPrefix = "team:"

    package static let none = Tags(text: "", isChecked: true)

    /// In ascending order of their bytes, each once, with commas; empty for none.
    package let text: String

    private init(text: String, isChecked: Bool) { self.text = text }

    /// `nil` for more or longer ones than the limits, and for other characters than letters and
    /// digits of ASCII and `. _ : / @ -`.
    package init?(_ names: some Sequence<String>) {
        let unique = Set(names).sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
        let text = unique.joined(separator: ",")
        guard unique.count <= Self.countMax, unique.allSatisfy(Self.isName),
            text.utf8.count <= Self.textBytesMax
        else { return nil }
        self.text = text
    }

    /// A list as people write it: `team:search, launch`.
    package init?(list: String) {
        let names = list.split(separator: ",", omittingEmptySubsequences: false).map {
            String($0.drop { $0 == " " }.reversed().drop { $0 == " " }.reversed())
        }
        self.init(names)
    }

    /// `nil` for what `text` does not say of any set.
    package init?(text: String) {
        guard let tags = text.isEmpty ? Tags.none : Tags(list: text), tags.text == text else {
            return nil
        }
        self = tags
    }

    package var isEmpty: Bool { text.isEmpty }

    package var names: [String] { text.split(separator: ",").map(String.init) }

    package static func isName(_ text: String) -> Bool {
        (1...nameBytesMax).contains(text.utf8.count) && text.utf8.allSatisfy(isPlain)
    }

    private static func isPlain(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"):
            true
        default: ".:_/@-".utf8.contains(byte)
        }
    }
}
