/// A page of Prometheus' text format, as a scraper reads it.
struct Exposition {
    struct Sample {
        let name: String
        let labels: [String: String]
        let value: Double
    }

    /// Family → `counter`, `gauge` or `histogram`.
    private(set) var types: [String: String] = [:]
    private(set) var samples: [Sample] = []

    init(_ text: String) {
        for line in text.split(separator: "\n") {
            let words = line.split(separator: " ")
            if line.hasPrefix("# TYPE "), words.count == 4 {
                types[String(words[2])] = String(words[3])
            } else if !line.hasPrefix("#"), let sample = Self.sample(line) {
                samples.append(sample)
            }
        }
    }

    private static func sample(_ line: Substring) -> Sample? {
        let name = line.prefix { $0 != "{" && $0 != " " }
        guard let value = line.split(separator: " ").last.flatMap({ Double($0) }) else {
            return nil
        }
        var labels: [String: String] = [:]
        if let open = line.firstIndex(of: "{"), let close = line.lastIndex(of: "}") {
            // Labels here are names of the policy and addresses: none has a comma or a quote.
            for pair in line[line.index(after: open)..<close].split(separator: ",") {
                let parts = pair.split(separator: "=", maxSplits: 1)
                guard parts.count == 2 else { return nil }
                labels[String(parts[0])] = parts[1].filter { $0 != "\"" }
            }
        }
        return Sample(name: String(name), labels: labels, value: value)
    }

    /// The sum of all samples of that name with those labels.
    func sum(_ name: String, _ labels: [String: String] = [:]) -> Double {
        samples.filter { sample in
            sample.name == name && labels.allSatisfy { sample.labels[$0.key] == $0.value }
        }.reduce(0) { $0 + $1.value }
    }

    /// The names of the labels of every series of a family, `le` apart.
    func labels(of family: String) -> Set<Set<String>> {
        let suffixes = types[family] == "histogram" ? ["_bucket", "_sum", "_count"] : [""]
        return Set(
            samples.filter { sample in suffixes.contains { sample.name == family + $0 } }
                .map { Set($0.labels.keys).subtracting(["le"]) })
    }
}

extension Endpoint {
    /// Of an admin listener.
    func metrics() async throws -> Exposition {
        let answer = try await get("/metrics")
        guard answer.status == 200 else {
            throw TestProcess.Failed(description: "/metrics: \(answer.status)")
        }
        return Exposition(answer.text)
    }
}
