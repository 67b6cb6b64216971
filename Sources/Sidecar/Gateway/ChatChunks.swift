import SidecarCore
import WeirCore

/// Puts a streamed chat completion together: words as they come, and at the end the completion as
/// if it had come whole. Pure: bytes in, words out.
struct ChatChunks {
    /// The agent said in mid-stream that it failed, or what it sent is no stream of chunks.
    struct Broken: Error, Hashable {
        let detail: String
    }

    private var line: [UInt8] = []
    private var data: [UInt8] = []
    private var bytes = 0
    private var text = ""
    private var refusal = ""
    private var calledTool = false
    private var finish: String?
    private var isDone = false

    /// The words in these bytes.
    mutating func feed(_ piece: [UInt8]) throws(Broken) -> String {
        bytes += piece.count
        guard bytes <= GatewayLimits.agentAnswerBytesMax else {
            throw Broken(detail: "its answer is too large")
        }
        var words = ""
        for byte in piece {
            // Lines end in LF, CR or CRLF; the empty line in the middle of a CRLF ends nothing
            // that was not ended by the CR.
            guard byte == 0x0A || byte == 0x0D else {
                line.append(byte)
                continue
            }
            words += try endLine()
        }
        return words
    }

    private mutating func endLine() throws(Broken) -> String {
        defer { line.removeAll(keepingCapacity: true) }
        if line.isEmpty { return try endEvent() }
        if line.starts(with: "data:".utf8) {
            let value = line.dropFirst(5)
            if !data.isEmpty { data.append(0x0A) }
            data += value.first == 0x20 ? value.dropFirst() : value
        }
        return ""
    }

    private mutating func endEvent() throws(Broken) -> String {
        guard !data.isEmpty else { return "" }
        defer { data.removeAll(keepingCapacity: true) }
        if data == Array("[DONE]".utf8) {
            isDone = true
            return ""
        }
        guard let chunk = try? JSON.parse(data) else {
            throw Broken(detail: "an event is not JSON")
        }
        if let error = chunk["error"], error != .null {
            throw Broken(detail: error["message"]?.string.map { String($0.prefix(200)) } ?? "")
        }
        guard let choice = chunk["choices"]?.array?.first else { return "" }
        let delta = choice["delta"]
        let words = delta?["content"]?.string ?? ""
        text += words
        refusal += delta?["refusal"]?.string ?? ""
        calledTool = calledTool || delta?["tool_calls"]?.array?.isEmpty == false
        finish = choice["finish_reason"]?.string ?? finish
        return words
    }

    /// The whole completion, once the body has ended. One that neither finished nor said that it is
    /// done was cut off.
    func completion() throws(Broken) -> [UInt8] {
        guard isDone || finish != nil else { throw Broken(detail: "its stream ended early") }
        var message: JSONObject = ["role": "assistant", "content": .string(text)]
        if !refusal.isEmpty { message["refusal"] = .string(refusal) }
        if calledTool { message["tool_calls"] = [[:]] }
        var choice: JSONObject = ["index": 0, "message": .object(message)]
        choice["finish_reason"] = finish.map { .string($0) }
        return JSONValue.object(["choices": .array([.object(choice)])]).bytes
    }
}
