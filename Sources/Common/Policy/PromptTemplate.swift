import WeirCore

/// What to say to a chat model for a step of an analysis. `{{name}}` stands for an input of the
/// step. A line that names an absent input is left out; a structured input is written as JSON.
///
/// Inputs come from users, so a rendered input is never read as a template again.
package struct PromptTemplate: Hashable, Sendable {
    package var system: String?
    package var user: String

    package init(system: String?, user: String) {
        self.system = system
        self.user = user
    }

    /// Every name between double braces, in both parts.
    package var placeholders: Set<String> {
        var names: Set<String> = []
        for text in [system ?? "", user] {
            for piece in Self.pieces(text[...]) {
                if case .placeholder(let name) = piece { names.insert(name) }
            }
        }
        return names
    }

    var saysJSON: Bool {
        [system ?? "", user].contains { $0.lowercased().contains("json") }
    }

    package static func render(_ template: String, inputs: [String: JSONValue]) -> String {
        template.split(separator: "\n", omittingEmptySubsequences: false)
            .compactMap { line(of: pieces($0), inputs: inputs) }
            .joined(separator: "\n")
    }

    private enum Piece {
        case text(Substring)
        case placeholder(String)
    }

    private static func line(of pieces: [Piece], inputs: [String: JSONValue]) -> String? {
        var output = ""
        for piece in pieces {
            switch piece {
            case .text(let text): output += text
            case .placeholder(let name):
                guard let value = inputs[name] else { return nil }
                output += value.string ?? value.text
            }
        }
        return output
    }

    private static func pieces(_ text: Substring) -> [Piece] {
        var pieces: [Piece] = []
        var rest = text
        while let open = rest.firstPair(of: UInt8(ascii: "{")),
            let close = rest[open.upperBound...].firstPair(of: UInt8(ascii: "}"))
        {
            let inner = rest[open.upperBound..<close.lowerBound]
            pieces.append(.text(rest[..<open.lowerBound]))
            pieces.append(.placeholder(trimmed(inner)))
            rest = rest[close.upperBound...]
        }
        pieces.append(.text(rest))
        return pieces
    }

    private static func trimmed(_ text: Substring) -> String {
        let front = text.drop { $0 == " " }
        guard let end = front.lastIndex(where: { $0 != " " }) else { return "" }
        return String(front[...end])
    }
}

extension Substring {
    /// The first place where a byte stands twice in a row.
    fileprivate func firstPair(of byte: UInt8) -> Range<Index>? {
        var index = startIndex
        while let first = utf8[index...].firstIndex(of: byte) {
            let second = utf8.index(after: first)
            if second < endIndex, utf8[second] == byte {
                return first..<utf8.index(after: second)
            }
            index = second
        }
        return nil
    }
}
