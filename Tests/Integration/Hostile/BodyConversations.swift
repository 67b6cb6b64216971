/// Bodies that are no JSON, or JSON that two readers could read differently (RFC 8259 §4, §8).
/// Each is sent whole and well framed; the connection ends because the client asks for it.
enum BodyConversations {
    /// A body, the reason that it is refused for, and a name.
    typealias Row = (name: String, body: [UInt8], status: Int, reason: String)

    /// What is wrong with any document. `{member}` stands for members that a good body would have.
    static func documents(member: String) -> [Row] {
        [
            text("empty body", "", 400, "malformed"),
            text("only white space", " \r\n\t", 400, "malformed"),
            text("a word", "nonsense", 400, "malformed"),
            text("the object does not end", "{\(member)", 400, "malformed"),
            text("text after the document", "{\(member)}{}", 400, "malformed"),
            text("two documents in lines", "{\(member)}\n{\(member)}", 400, "malformed"),
            text("comma at the end", "{\(member),}", 400, "malformed"),
            text("comma at the beginning", "{,\(member)}", 400, "malformed"),
            text("single quotes", "{\(member),'a':1}", 400, "malformed"),
            text("key without quotes", "{\(member),a:1}", 400, "malformed"),
            text("comment", "{\(member)/* */}", 400, "malformed"),
            text("line comment", "{\(member)}// x", 400, "malformed"),
            text("NaN", "{\(member),\"a\":NaN}", 400, "malformed"),
            text("Infinity", "{\(member),\"a\":-Infinity}", 400, "malformed"),
            text("hexadecimal number", "{\(member),\"a\":0x10}", 400, "malformed"),
            text("leading zero", "{\(member),\"a\":010}", 400, "malformed"),
            text("leading plus", "{\(member),\"a\":+1}", 400, "malformed"),
            text("leading point", "{\(member),\"a\":.5}", 400, "malformed"),
            text("trailing point", "{\(member),\"a\":5.}", 400, "malformed"),
            text("empty exponent", "{\(member),\"a\":5e}", 400, "malformed"),
            text("true in upper case", "{\(member),\"a\":True}", 400, "malformed"),
            text("NUL behind the document", "{\(member)}\0", 400, "malformed"),
            text("NUL in a string", "{\(member),\"a\":\"\0\"}", 400, "malformed"),
            text("line feed in a string", "{\(member),\"a\":\"\n\"}", 400, "malformed"),
            text("unknown escape", "{\(member),\"a\":\"\\x41\"}", 400, "malformed"),
            text("short escape", "{\(member),\"a\":\"\\u12\"}", 400, "malformed"),
            text("lone high surrogate", "{\(member),\"a\":\"\\uD800\"}", 400, "malformed"),
            text("lone low surrogate", "{\(member),\"a\":\"\\uDC00\"}", 400, "malformed"),
            text(
                "surrogates in the wrong order", "{\(member),\"a\":\"\\uDC00\\uD800\"}", 400,
                "malformed"),
            text("byte order mark", "\u{FEFF}{\(member)}", 400, "malformed"),
            text("depth of 65", "{\(member),\"a\":" + nested(65) + "}", 400, "malformed"),
            text("depth of 20,000", "{\(member),\"a\":" + nested(20_000) + "}", 400, "malformed"),
            text(
                "objects 20,000 deep", String(repeating: "{\"a\":", count: 20_000), 400, "malformed"
            ),
            text("the same key twice", "{\(member),\"a\":1,\"a\":1}", 400, "duplicate_key"),
            text(
                "the same key in an escape", "{\(member),\"a\":1,\"\\u0061\":2}", 400,
                "duplicate_key"),
            bytes("UTF-8 that ends early", member, [0xC3], "malformed"),
            bytes("overlong UTF-8", member, [0xC0, 0xAF], "malformed"),
            bytes("surrogate in UTF-8", member, [0xED, 0xA0, 0x80], "malformed"),
            bytes("UTF-8 above U+10FFFF", member, [0xF4, 0x90, 0x80, 0x80], "malformed"),
            bytes("a byte that is never UTF-8", member, [0xFF], "malformed"),
            (
                "UTF-16",
                [0xFF, 0xFE] + member.utf16.flatMap { [UInt8($0 & 0xFF), UInt8($0 >> 8)] }, 400,
                "malformed"
            ),
        ]
    }

    static func nested(_ depth: Int) -> String {
        String(repeating: "[", count: depth) + String(repeating: "]", count: depth)
    }

    static func text(_ name: String, _ body: String, _ status: Int, _ reason: String) -> Row {
        (name, Array(body.utf8), status, reason)
    }

    /// The bytes stand in a string.
    private static func bytes(
        _ name: String, _ member: String, _ bytes: [UInt8], _ reason: String
    ) -> Row {
        (name, Array("{\(member),\"a\":\"".utf8) + bytes + Array("\"}".utf8), 400, reason)
    }

    /// A request with this body, after which the client closes.
    static func conversation(_ row: Row, _ path: String, _ fields: String) -> Conversation {
        let head =
            "POST \(path) HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\(fields)"
            + "Connection: close\r\nContent-Length: \(row.body.count)\r\n\r\n"
        return Conversation(row.name, Array(head.utf8) + row.body, [row.status], row.reason)
    }
}

/// What only the gateway's endpoint refuses: values that its schema does not take.
enum AnalyzeConversations {
    static let member = #""analysis_type":"news_analysis","data":{"text":"Shares rose"}"#

    static let rows: [BodyConversations.Row] = [
        text("an array", "[]"),
        text("a string", #""news_analysis""#),
        text("null", "null"),
        text("no members", "{}"),
        text("data that is an array", #"{"analysis_type":"news_analysis","data":[]}"#),
        text("data that is null", #"{"analysis_type":"news_analysis","data":null}"#),
        text("text that is a number", #"{"analysis_type":"news_analysis","data":{"text":7}}"#),
        text("text that is empty", #"{"analysis_type":"news_analysis","data":{"text":""}}"#),
        text("a member that nobody knows", "{\(member),\"admin\":true}"),
        text(
            "a member of data that nobody knows",
            #"{"analysis_type":"news_analysis","data":{"text":"a","tier":"enterprise"}}"#),
        text("__proto__", "{\(member),\"__proto__\":{\"tier\":\"enterprise\"}}"),
        text("type in another case", #"{"analysis_type":"NEWS_ANALYSIS","data":{"text":"a"}}"#),
        text("type with NUL", #"{"analysis_type":"news_analysis\u0000","data":{"text":"a"}}"#),
        text("type with a path", #"{"analysis_type":"../news_analysis","data":{"text":"a"}}"#),
        text("type of another kind", #"{"analysis_type":["news_analysis"],"data":{"text":"a"}}"#),
        text("negative cost", "{\(member),\"options\":{\"max_cost_usd\":\"-1\"}}"),
        text("cost as a number", "{\(member),\"options\":{\"max_cost_usd\":1e-9}}"),
        text("cost of ten decimals", "{\(member),\"options\":{\"max_cost_usd\":\"0.0000000001\"}}"),
        text(
            "cost above 2^63", "{\(member),\"options\":{\"max_cost_usd\":\"99999999999999999999\"}}"
        ),
        text("time of zero", "{\(member),\"options\":{\"timeout_ms\":0}}"),
        text("negative time", "{\(member),\"options\":{\"timeout_ms\":-1}}"),
        text("time above 2^63", "{\(member),\"options\":{\"timeout_ms\":1e300}}"),
        text("time with a fraction", "{\(member),\"options\":{\"timeout_ms\":1.5}}"),
        text(
            "an agent that nobody knows",
            "{\(member),\"options\":{\"agents\":{\"sentiment\":\"gpt5\"}}}"),
        text(
            "an agent for a step that is none",
            "{\(member),\"options\":{\"agents\":{\"x\":\"finbert\"}}}"),
        text(
            "text of 20,001 letters",
            "{\"analysis_type\":\"news_analysis\",\"data\":{\"text\":\""
                + String(repeating: "a", count: 20_001) + "\"}}"),
        BodyConversations.text(
            "a number out of range", "{\(member),\"a\":1e999}", 400, "malformed"),
        BodyConversations.text(
            "the same key deep down",
            #"{"analysis_type":"news_analysis","data":{"text":"a","text":"b"}}"#, 400,
            "duplicate_key"),
        BodyConversations.text(
            "more than 1 MiB",
            "{\"analysis_type\":\"" + String(repeating: "a", count: (1 << 20) + 1) + "\"}", 413,
            "too_large"),
    ]

    private static func text(_ name: String, _ body: String) -> BodyConversations.Row {
        BodyConversations.text(name, body, 422, "invalid")
    }

    /// Well-formed requests that their head alone makes wrong.
    static func heads(authorization: String) -> [Conversation] {
        let body = "{\(member)}"
        func post(
            _ name: String, _ status: Int, _ reason: String, path: String = "/analyze",
            method: String = "POST", _ fields: String
        ) -> Conversation {
            Conversation(
                name,
                "\(method) \(path) HTTP/1.1\r\nHost: a\r\n\(fields)Connection: close\r\n"
                    + "Content-Length: \(body.utf8.count)\r\n\r\n\(body)", status, reason)
        }
        let json = "Content-Type: application/json\r\n"
        let auth = "Authorization: \(authorization)\r\n"
        return [
            post("no token", 401, "unauthenticated", json),
            post("two tokens", 401, "unauthenticated", json + auth + auth),
            post(
                "basic scheme", 401, "unauthenticated", json + "Authorization: Basic YTpi\r\n"),
            post(
                "bearer without a token", 401, "unauthenticated", json + "Authorization: Bearer\r\n"
            ),
            post(
                "token after two spaces", 401, "unauthenticated",
                json + auth.replacing("Bearer ", with: "Bearer  ")),
            post(
                "subject in a field", 401, "unauthenticated",
                json + "weir-subject: alice\r\nweir-tier: enterprise\r\n"),
            post(
                "delegation from outside", 401, "unauthenticated",
                json + "weir-delegation: AAAA.AAAA\r\n"),
            post("no media type", 415, "media_type", auth),
            post(
                "a form", 415, "media_type",
                auth + "Content-Type: application/x-www-form-urlencoded\r\n"),
            post("JSON by another name", 415, "media_type", auth + "Content-Type: text/json\r\n"),
            post(
                "two media types", 415, "media_type", auth + json + "Content-Type: text/plain\r\n"),
            post("PUT", 405, "method", method: "PUT", auth + json),
            post("a method that nobody knows", 405, "method", method: "BREW", auth + json),
            post("method in lower case", 405, "method", method: "post", auth + json),
            post("a path behind the path", 404, "unknown_route", path: "/analyze/", auth + json),
            post("two slashes", 404, "unknown_route", path: "//analyze", auth + json),
            post("dots", 404, "unknown_route", path: "/x/../analyze", auth + json),
            post("an escaped slash", 404, "unknown_route", path: "/%2Fanalyze", auth + json),
            post("an escaped letter", 404, "unknown_route", path: "/%61nalyze", auth + json),
            post("path in another case", 404, "unknown_route", path: "/Analyze", auth + json),
            post(
                "the mesh's own path", 404, "unknown_route", path: "/mesh/v1/subject", auth + json),
            post(
                "an agent's path", 404, "unknown_route", path: "/models/ProsusAI/finbert",
                auth + json),
        ]
    }
}
