/// How the samples count tokens: each word, each number and each mark of punctuation is one; a word
/// longer than eight letters is one more for every eight further letters. Real tokenizers differ;
/// what matters is that the count is a fact about the text, not a constant.
enum Tokens {
    static func count(_ text: String) -> Int { split(text).reduce(0) { $0 + cost($1) } }

    /// The text in pieces whose concatenation is the text: a word with the space before it, or one
    /// mark of punctuation.
    static func split(_ text: String) -> [Substring] {
        var pieces: [Substring] = []
        var start = text.startIndex
        var index = start
        var inWord = false
        while index < text.endIndex {
            let character = text[index]
            let isWord = character.isLetter || character.isNumber
            if start < index, !character.isWhitespace, !(isWord && inWord),
                !text[start..<index].allSatisfy(\.isWhitespace)
            {
                pieces.append(text[start..<index])
                start = index
            } else if character.isWhitespace, inWord {
                pieces.append(text[start..<index])
                start = index
            }
            inWord = isWord
            index = text.index(after: index)
        }
        if start < text.endIndex { pieces.append(text[start...]) }
        return pieces
    }

    static func cost(_ piece: Substring) -> Int {
        let length = piece.count { !$0.isWhitespace }
        return length == 0 ? 0 : 1 + (length - 1) / 8
    }

    /// The longest beginning of `text` that has at most `limit` tokens.
    static func prefix(_ text: String, limit: Int) -> (pieces: [Substring], count: Int, whole: Bool)
    {
        var used = 0
        var kept: [Substring] = []
        for piece in split(text) {
            let next = used + cost(piece)
            guard next <= limit else { return (kept, used, false) }
            used = next
            kept.append(piece)
        }
        return (kept, used, true)
    }
}
