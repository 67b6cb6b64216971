/// The words that carry sentiment in financial news, with weights. Small and made by hand: good
/// enough to tell a profit warning from a record quarter, and no more than that.
enum Lexicon {
    static let weights: [String: Double] = merged([
        (2.0, "outperform outperformed record breakthrough stellar bullish upgrade upgraded"),
        (
            1.5,
            """
            beat beats beating strong stronger strongest robust profit profits profitable growth \
            gain gains gained rally rallied boom booming win wins won success successful
            """
        ),
        (
            1.0,
            """
            good better best positive improve improved improves improving improvement solid \
            optimistic confident momentum approval approved expand expands expanded expansion \
            dividend buyback recover recovered recovery resilient healthy exceed exceeded exceeds
            """
        ),
        (
            -2.0,
            """
            bankruptcy bankrupt fraud crash crashed collapse collapsed plummet plummeted default \
            defaulted bearish downgrade downgraded scandal insolvent insolvency
            """
        ),
        (
            -1.5,
            """
            weak weaker weakest miss missed misses lawsuit lawsuits investigation probe recall \
            layoffs fail failed failure fails warning warns warned slump slumped tumble tumbled \
            recession crisis worse worst
            """
        ),
        (
            -1.0,
            """
            bad negative concern concerns concerned risk risks risky uncertain uncertainty \
            volatile volatility decline declines declined disappoint disappointed disappointing \
            poor slow slower slowdown delay delayed cut cuts fear fears pressure struggling
            """
        ),
    ])

    /// Words of direction: what they mean depends on what moves.
    static let directions: [String: Double] = merged([
        (1.5, "surge surged surges soar soared soars jump jumped jumps skyrocketed"),
        (1.0, "rise rises rose rising increase increased increases climb climbed up higher grew"),
        (
            -1.0,
            "fall falls fell falling decrease decreased decreases drop drops dropped down lower"
        ),
        (-1.5, "plunge plunged plunges sank sink slid shrank"),
    ])

    /// What is bad when it rises. A loss is bad where it stands, too.
    static let costs: Set<String> = [
        "cost", "costs", "debt", "debts", "expense", "expenses", "inflation", "unemployment",
        "loss", "losses", "deficit", "defaults", "churn",
    ]
    static let losses: Set<String> = ["loss", "losses", "deficit"]
    /// What is good where it stands, but says nothing by itself when something is said of its way:
    /// "profits plunged".
    static let gains: Set<String> = ["profit", "profits", "growth", "momentum", "dividend"]

    static let negations: Set<String> = [
        "not", "no", "never", "without", "hardly", "barely", "neither", "nor", "cannot", "isn't",
        "wasn't", "don't", "doesn't", "didn't", "won't", "can't", "couldn't", "failed",
    ]

    static let intensifiers: [String: Double] = [
        "very": 1.3, "extremely": 1.6, "sharply": 1.5, "significantly": 1.4, "strongly": 1.4,
        "highly": 1.3, "massively": 1.6, "deeply": 1.4, "slightly": 0.5, "somewhat": 0.7,
        "marginally": 0.4, "modestly": 0.6, "mildly": 0.6,
    ]

    private static func merged(_ groups: [(Double, String)]) -> [String: Double] {
        var result: [String: Double] = [:]
        for (weight, words) in groups {
            for word in words.split(whereSeparator: \.isWhitespace) {
                result[String(word)] = weight
            }
        }
        return result
    }
}
