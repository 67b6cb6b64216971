/// The text that a sample model writes: sentences from a template, chosen and filled by what the
/// prompt says (its task, names, figures and tone). The same prompt gives the same text.
struct Prose {
    enum Style { case brief, thorough }

    enum Task { case strategy, forecast, portfolio, news }

    let prompt: String
    let style: Style

    var text: String {
        let facts = PromptFacts(prompt)
        var sentences =
            switch facts.task {
            case .strategy: strategy(facts)
            case .forecast: forecast(facts)
            case .portfolio: portfolio(facts)
            case .news: news(facts)
            }
        if style == .brief { sentences = Array(sentences.prefix(3)) }
        sentences.append("This text was written by a sample agent; it is not investment advice.")
        return sentences.joined(separator: " ")
    }

    /// The same as one JSON object: a strategy by its name and its reason, all else as `text`.
    var json: String {
        let facts = PromptFacts(prompt)
        let object =
            facts.task == .strategy
            ? ["strategy": choice(facts).name, "rationale": text] : ["text": text]
        return String(decoding: SampleJSON.encode(object), as: UTF8.self)
    }

    private func news(_ facts: PromptFacts) -> [String] {
        let cause =
            facts.signals.isEmpty
            ? "It contains no clear words of sentiment"
            : "What decides is the wording: " + PromptFacts.list(facts.signals)
        return [
            "The news about \(facts.subject) reads \(facts.tone).",
            "\(cause)\(facts.figures.isEmpty ? "" : ", with " + PromptFacts.list(facts.figures)).",
            facts.tone == "neutral"
                ? "Without a surprise, prices usually follow the market as a whole."
                : "Such news tends to move a price at once and to be mostly in it within a day.",
            "Look at volume and at the next guidance before acting on a single headline.",
        ]
    }

    private func forecast(_ facts: PromptFacts) -> [String] {
        [
            "The forecast for \(facts.subject) continues the recent trend and lets it fade.",
            facts.figures.isEmpty
                ? "No figures came with the request."
                : "The figures given are \(PromptFacts.list(facts.figures)).",
            "The interval widens with the horizon, so later days say less than earlier ones.",
            "An earnings date or a macro event inside the horizon is not in a model of prices.",
        ]
    }

    private func portfolio(_ facts: PromptFacts) -> [String] {
        [
            "The portfolio holds \(facts.subject).",
            facts.figures.isEmpty
                ? "No risk figures came with the request."
                : "Its figures are \(PromptFacts.list(facts.figures)).",
            "The tone of the news around it is \(facts.tone).",
            "Concentration and common drivers matter more than the number of positions.",
        ]
    }

    private func choice(_ facts: PromptFacts) -> (name: String, reason: String) {
        let cautious = facts.contains("low") || facts.contains("conservative")
        return switch facts.outlook {
        case .up where cautious: ("bull put spread", "income if the price holds")
        case .up: ("bull call spread", "a gain from a rise, paid for in part by the cap")
        case .down where cautious: ("protective put", "a floor under what is held")
        case .down: ("bear put spread", "a gain from a fall at a known price")
        case .volatile: ("long straddle", "a gain from a large move either way")
        case .flat where cautious: ("iron condor", "income while the price stays in a range")
        case .flat: ("calendar spread", "income from the faster decay of the near month")
        }
    }

    private func strategy(_ facts: PromptFacts) -> [String] {
        let (name, reason) = choice(facts)
        return [
            "For \(facts.subject) a \(name) fits the stated outlook: \(reason).",
            "Its greatest loss is known on entry, so size it by that loss.",
            "Choose strikes around the expected range and an expiry beyond the event in view.",
            "Close it at half of the greatest gain, or when the reason for it is gone.",
        ]
    }
}

/// What can be read off a prompt without understanding it.
struct PromptFacts {
    enum Outlook { case up, down, flat, volatile }

    let words: [String]
    let lowercaseWords: Set<String>
    let tone: String
    let figures: [String]
    let signals: [String]
    /// The names in the prompt, as one phrase.
    let subject: String

    init(_ prompt: String) {
        words = prompt.split { !($0.isLetter || $0.isNumber || "%$.-'".contains($0)) }
            .map { String($0).trimmingMarks }.filter { !$0.isEmpty }
        lowercaseWords = Set(words.map { $0.lowercased() })
        tone = Sentiment(prompt).label
        figures = Array(
            words.filter {
                $0.contains(where: \.isNumber) && ($0.contains("%") || $0.contains("$"))
            }
            .uniqued.prefix(4))
        signals = Array(
            words.map { $0.lowercased() }
                .filter { Lexicon.weights[$0] != nil || Lexicon.directions[$0] != nil }
                // Names of a judgement, not reasons for it.
                .filter { $0 != "positive" && $0 != "negative" }
                .uniqued.prefix(4))
        let names = words.filter(Self.isName).uniqued.prefix(3)
        subject = names.isEmpty ? "the subject" : Self.list(Array(names))
    }

    func contains(_ word: String) -> Bool { lowercaseWords.contains(word) }

    var task: Prose.Task {
        if contains("option") || contains("options") || contains("strategy") { return .strategy }
        if contains("forecast") || contains("horizon") || contains("prediction") {
            return .forecast
        }
        if contains("portfolio") || contains("positions") { return .portfolio }
        return .news
    }

    var outlook: Outlook {
        if contains("volatile") || contains("volatility") { return .volatile }
        if contains("bullish") || contains("up") { return .up }
        if contains("bearish") || contains("down") { return .down }
        return .flat
    }

    static func list(_ items: [String]) -> String {
        guard let last = items.last else { return "" }
        guard items.count > 1 else { return last }
        return items.dropLast().joined(separator: ", ") + " and " + last
    }

    /// Capitalised, more than one letter, and no word that sentences and instructions begin with.
    private static func isName(_ word: String) -> Bool {
        guard word.count > 1, word.first?.isUppercase == true else { return false }
        return !ordinary.contains(word.lowercased())
    }

    private static let ordinary: Set<String> = [
        "the", "a", "an", "this", "that", "these", "in", "on", "after", "before", "for", "explain",
        "you", "your", "it", "its", "text", "sentiment", "news", "give", "write", "summarise",
        "summarize", "analyse", "analyze", "what", "why", "how", "do", "use", "as", "be", "keep",
        "please", "state", "options", "strategy", "forecast", "portfolio", "risk", "answer",
        "json", "usd", "article", "headline", "recommend", "describe", "symbol", "outlook",
        "symbols", "score", "label", "data", "positions", "horizon", "shares",
    ]
}

extension String {
    /// Without the marks that end a sentence or open a phrase.
    fileprivate var trimmingMarks: String {
        var text = self[...]
        while let last = text.last, ".-'".contains(last) { text.removeLast() }
        while let first = text.first, ".-'".contains(first) { text.removeFirst() }
        return String(text)
    }
}

extension Array where Element: Hashable {
    /// Each element once, in the order of first appearance.
    fileprivate var uniqued: [Element] {
        var seen: Set<Element> = []
        return filter { seen.insert($0).inserted }
    }
}
