import Foundation

/// How good or bad a text is for whom it speaks of: the sum of the words' weights, each changed by
/// what stands before it.
struct Sentiment: Equatable {
    /// Sums of the weights of the words that speak for and against; both at least 0.
    var positive = 0.0
    var negative = 0.0

    var balance: Double { positive - negative }

    init(_ text: String) {
        let words = Self.words(text)
        for index in words.indices {
            guard let weight = Self.weight(at: index, in: words) else { continue }
            if weight > 0 { positive += weight } else { negative -= weight }
        }
    }

    private static func words(_ text: String) -> [String] {
        text.lowercased().replacing("’", with: "'")
            .split { !$0.isLetter && $0 != "'" }
            .map(String.init)
    }

    private static func weight(at index: Int, in words: [String]) -> Double? {
        let word = words[index]
        var weight: Double
        if let known = Lexicon.directions[word] {
            // "Costs fell" is good news: the thing that moves stands close to the verb.
            weight = movesACost(at: index, in: words) ? -known : known
        } else if Lexicon.gains.contains(word), isMoved(at: index, in: words) {
            return nil
        } else if let known = Lexicon.weights[word] {
            weight = known
        } else if Lexicon.losses.contains(word), !isMoved(at: index, in: words) {
            weight = -1.5
        } else {
            return nil
        }
        // "sharply lower" and "fell sharply"
        for neighbour in [index - 1, index + 1] where words.indices.contains(neighbour) {
            weight *= Lexicon.intensifiers[words[neighbour]] ?? 1
        }
        if words[max(0, index - 3)..<index].contains(where: Lexicon.negations.contains) {
            // A negated word says less than its opposite would: "not good" is not "bad".
            weight *= -0.7
        }
        return weight
    }

    private static func movesACost(at index: Int, in words: [String]) -> Bool {
        neighbours(of: index, in: words).contains(where: Lexicon.costs.contains)
    }

    private static func isMoved(at index: Int, in words: [String]) -> Bool {
        neighbours(of: index, in: words).contains { Lexicon.directions[$0] != nil }
    }

    private static func neighbours(of index: Int, in words: [String]) -> ArraySlice<String> {
        words[max(0, index - 2)..<min(words.count, index + 3)]
    }

    /// Probabilities as FinBERT gives them: positive, negative, neutral; they add up to 1. A text
    /// without any word of sentiment is neutral.
    var probabilities: (positive: Double, negative: Double, neutral: Double) {
        let weights = [exp(positive), exp(negative), exp(1.2)]
        // Sums above 300 would overflow the exponential; beyond 20 the answer is plain anyway.
        guard max(positive, negative) < 20 else {
            return positive > negative ? (1, 0, 0) : (0, 1, 0)
        }
        let total = weights.reduce(0, +)
        return (weights[0] / total, weights[1] / total, weights[2] / total)
    }

    var label: String {
        let scores = probabilities
        if scores.neutral >= max(scores.positive, scores.negative) { return "neutral" }
        return scores.positive >= scores.negative ? "positive" : "negative"
    }
}

/// FinBERT behind Hugging Face's inference API: `{"inputs": "…"}` or `{"inputs": ["…", …]}`
/// →
/// `[[{"label", "score"}, …], …]`, the likeliest label first.
enum SentimentAgent {
    /// As many texts as one request may carry.
    static let inputsMax = 256

    private struct Query: Decodable {
        let inputs: Inputs
    }

    private enum Inputs: Decodable {
        case one(String)
        case many([String])

        init(from decoder: any Decoder) throws {
            let container = try decoder.singleValueContainer()
            if let text = try? container.decode(String.self) {
                self = .one(text)
            } else {
                self = .many(try container.decode([String].self))
            }
        }

        var texts: [String] {
            switch self {
            case .one(let text): [text]
            case .many(let texts): texts
            }
        }
    }

    private struct Score: Encodable {
        let label: String
        let score: Double
        let sample = true
    }

    static func answer(_ body: [UInt8]) throws(Refusal) -> Answer {
        let texts = try SampleJSON.decode(Query.self, from: body).inputs.texts
        guard !texts.isEmpty, texts.count <= inputsMax else {
            throw .invalid("inputs: between 1 and \(inputsMax) texts")
        }
        let scores = texts.map { text in
            let probabilities = Sentiment(text).probabilities
            return [
                Score(label: "positive", score: probabilities.positive),
                Score(label: "negative", score: probabilities.negative),
                Score(label: "neutral", score: probabilities.neutral),
            ].sorted { $0.score > $1.score }
        }
        return Answer(
            fields: [("sample", "true")], pieces: [SampleJSON.encode(scores)],
            inputTokens: texts.reduce(0) { $0 + Tokens.count($1) })
    }
}
