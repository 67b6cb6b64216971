/// Conversations that are hostile by their HTTP alone: every listener must end them in the same
/// way. What follows behind is a good request, which must not be taken for one.
enum WireConversations {
    static var all: [Conversation] { lines + targets + fields + hosts + lengths + codings + sizes }

    /// RFC 9112 §2.2 and §3: one way to end a line, one space between two words.
    static let lines: [Conversation] = [
        .init("bare line feeds", "GET /health HTTP/1.1\nHost: a\n\n", 400, "malformed"),
        .init("one bare line feed", "GET /health HTTP/1.1\r\nHost: a\n\r\n", 400, "malformed"),
        .init(
            "bare carriage return", "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", 400, "malformed"
        ),
        .init(
            "carriage return before the line end", "GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", 400,
            "malformed"),
        .init("NUL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 400, "malformed"),
        .init("NUL in the target", "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed"),
        .init(
            "delete in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: a\u{7F}b\r\n\r\n", 400,
            "malformed"),
        .init(
            "two empty lines first", "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed"),
        .init("space before the method", " GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed"),
        .init("two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed"),
        .init("tab for a space", "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed"),
        .init("space behind the version", "GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400, "malformed"),
        .init("no version", "GET /\r\nHost: a\r\n\r\n", 400, "malformed"),
        .init("version in lower case", "GET / http/1.1\r\nHost: a\r\n\r\n", 400, "malformed"),
        .init("version 0.9", "GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505, "version"),
        .init("version 1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505, "version"),
        .init("version 2.0", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, "version"),
        .init("version with two digits", "GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400, "malformed"),
        .init("preface of HTTP/2.1", "PRI * HTTP/2.1\r\n\r\nSM\r\n\r\n", 505, "version"),
        .init("method that is no token", "G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed"),
        .init(
            "method of 33 bytes", String(repeating: "A", count: 33) + " / HTTP/1.1\r\n\r\n", 400,
            "malformed"),
        .init(
            "a TLS hello", [0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xFC, 0x0D, 0x0A],
            [400], "malformed"),
        .init("an SSH banner", "SSH-2.0-OpenSSH_9.2\r\n\r\n", 400, "malformed"),
        .init("an SMTP greeting", "EHLO example.org\r\n\r\n", 400, "malformed"),
        .init(
            "CONNECT", "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\nConnection: close\r\n\r\n", 501,
            "not_implemented"),
        .init(
            "TRACE", "TRACE / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 501,
            "not_implemented"),
    ]

    /// RFC 9112 §3.2.
    static let targets: [Conversation] = [
        .init("target with a space", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed"),
        .init("target with a fragment", "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed"),
        .init("target with a backslash", "GET /a\\b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed"),
        .init("target beyond ASCII", "GET /ä HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed"),
        .init("target without a slash", "GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed"),
        .init("asterisk for GET", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed"),
        .init(
            "target of another scheme", "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed"
        ),
        .init(
            "target elsewhere", "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed"),
        .init(
            "target with user information", "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400,
            "malformed"),
        .init(
            "target without a host", "GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed"),
    ]

    /// RFC 9112 §5, and names that gateways of the CGI kind would read as others.
    static let fields: [Conversation] = [
        .init(
            "space before the colon", "GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n", 400, "malformed"
        ),
        .init("empty name", "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", 400, "malformed"),
        .init("no colon", "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", 400, "malformed"),
        .init(
            "folded with a space", "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", 400,
            "malformed"),
        .init(
            "folded with a tab", "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n\tc\r\n\r\n", 400,
            "malformed"),
        .init("folded first field", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400, "malformed"),
        .init(
            "name not a token", "GET / HTTP/1.1\r\nHost: a\r\nX(: b\r\n\r\n", 400, "malformed"),
        .init("name beyond ASCII", "GET / HTTP/1.1\r\nHost: a\r\nXä: b\r\n\r\n", 400, "malformed"),
        .init(
            "length in disguise", "POST / HTTP/1.1\r\nHost: a\r\nContent_Length: 5\r\n\r\n", 400,
            "malformed"),
        .init(
            "coding in disguise",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer_Encoding: chunked\r\n\r\n", 400, "malformed"),
        .init(
            "a field of the mesh in disguise",
            "GET / HTTP/1.1\r\nHost: a\r\nweir_delegation: x\r\n\r\n", 400, "malformed"),
        .init(
            "authorization as a hop's own",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: authorization\r\n\r\n", 400, "malformed"),
        .init(
            "delegation as a hop's own",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: weir-delegation\r\n\r\n", 400, "malformed"),
        .init(
            "connection option that is no token",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: a b\r\n\r\n", 400, "malformed"),
        .init(
            "unknown expectation",
            "POST / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\nContent-Length: 1\r\n\r\n", 417,
            "expectation"),
    ]

    /// RFC 9112 §3.2, RFC 9110 §7.2.
    static let hosts: [Conversation] = [
        .init("no host", "GET / HTTP/1.1\r\n\r\n", 400, "malformed"),
        .init("a host in the target only", "GET http://a/ HTTP/1.1\r\n\r\n", 400, "malformed"),
        .init("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "malformed"),
        .init(
            "one host twice", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, "malformed"),
        .init("empty host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", 400, "malformed"),
        .init("host with a space", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "malformed"),
        .init("host with a comma", "GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", 400, "malformed"),
        .init("host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, "malformed"),
        .init("host with a user", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400, "malformed"),
        .init(
            "host with a port that is none", "GET / HTTP/1.1\r\nHost: a:x\r\n\r\n", 400, "malformed"
        ),
    ]

    /// RFC 9112 §6.3: one length, in digits.
    static let lengths: [Conversation] = [
        length("two lengths in one", "Content-Length: 5, 5\r\n"),
        length("the same length twice", "Content-Length: 5\r\nContent-Length: 5\r\n"),
        length("two lengths", "Content-Length: 5\r\nContent-Length: 6\r\n"),
        length("length with a plus", "Content-Length: +5\r\n"),
        length("negative length", "Content-Length: -5\r\n"),
        length("hexadecimal length", "Content-Length: 0x5\r\n"),
        length("length with a space", "Content-Length: 5 5\r\n"),
        length("length with a point", "Content-Length: 5.0\r\n"),
        length("empty length", "Content-Length:\r\n"),
        length("length above 2^63", "Content-Length: 9999999999999999999\r\n"),
        length("length that wraps at 2^64", "Content-Length: 18446744073709551621\r\n"),
        length("length with a leading zero", "Content-Length: 05\r\n"),
        length("length of a word", "Content-Length: five\r\n"),
    ]

    /// RFC 9112 §6.1 and §7.1.
    static let codings: [Conversation] = [
        length("length before coding", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        length("coding before length", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
        length("coding identity", "Transfer-Encoding: identity\r\n"),
        length("coding that ends like chunked", "Transfer-Encoding: xchunked\r\n"),
        length("chunked not last", "Transfer-Encoding: chunked, gzip\r\n"),
        length("chunked twice", "Transfer-Encoding: chunked, chunked\r\n"),
        length("two codings", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        length("coding and nonsense", "Transfer-Encoding: chunked\r\nTransfer-Encoding: cow\r\n"),
        length("coding with a vertical tab", "Transfer-Encoding: \u{B}chunked\r\n"),
        length("coding in quotes", "Transfer-Encoding: \"chunked\"\r\n"),
        length("coding with a parameter", "Transfer-Encoding: chunked;q=1\r\n"),
        .init(
            "unknown coding",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501,
            "not_implemented"),
        .init(
            "coding in HTTP/1.0",
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "malformed"),
        chunks("chunk size that is none", "g\r\n"),
        chunks("empty chunk size", "\r\n"),
        chunks("negative chunk size", "-1\r\n"),
        chunks("chunk size with 0x", "0x1\r\nA\r\n"),
        chunks("chunk size after a space", " 1\r\nA\r\n"),
        chunks("chunk size before a space", "1 \r\nA\r\n"),
        chunks("chunk size with a line feed", "1\nA\n"),
        chunks("chunk longer than its size", "1\r\nAB\r\n"),
        chunks("chunk ended by a line feed", "1\r\nA\n0\r\n\r\n"),
        chunks("chunk size above 2^64", "FFFFFFFFFFFFFFFFF\r\n"),
        chunks("chunk size of 2^64 - 1", "FFFFFFFFFFFFFFFF\r\nA"),
        chunks("NUL in a chunk extension", "1;a\0\r\nA\r\n"),
        chunks("line feed in a chunk extension", "1;a\nb\r\nA\r\n"),
        chunks("chunk extension without a name", "1;\r\nA\r\n"),
        chunks("chunk extension that is no token", "1;a[=b\r\nA\r\n"),
        chunks("quoted chunk extension without an end", "1;a=\"b\r\nA\r\n"),
        chunks("endless chunk extension", "1;" + String(repeating: "a", count: 5_000)),
        chunks("last chunk ended by a line feed", "0\r\n\n"),
        chunks("trailer ended by a line feed", "0\r\nA: b\n\r\n"),
        chunks("trailer without a colon", "0\r\nAb\r\n\r\n"),
        chunks("folded trailer", "0\r\nA: b\r\n c\r\n\r\n"),
        chunks("length in a trailer", "0\r\nContent-Length: 5\r\n\r\n"),
        chunks("endless trailers", "0\r\n" + String(repeating: "A: b\r\n", count: 2_000)),
    ]

    static let sizes: [Conversation] = [
        .init(
            "a field of 33 KB",
            "GET / HTTP/1.1\r\nHost: a\r\nX: " + String(repeating: "b", count: 33_000) + "\r\n\r\n",
            431, "headers_too_large"),
        .init(
            "a target of 9 KB",
            "GET /" + String(repeating: "b", count: 9_000) + " HTTP/1.1\r\nHost: a\r\n\r\n", 414,
            "uri_too_long"),
        .init(
            "a target of 100 KB", "GET /" + String(repeating: "b", count: 100_000), 414,
            "uri_too_long"),
        .init("a method of 100 KB", String(repeating: "A", count: 100_000), 400, "malformed"),
        .init(
            "101 fields",
            "GET / HTTP/1.1\r\nHost: a\r\n" + String(repeating: "X: b\r\n", count: 100) + "\r\n",
            431, "headers_too_large"),
        .init(
            "a head that never ends",
            "GET / HTTP/1.1\r\nHost: a\r\n"
                + String(
                    repeating: "X: " + String(repeating: "b", count: 1_000) + "\r\n", count: 40),
            431, "headers_too_large"),
    ]

    private static func length(_ name: String, _ fields: String) -> Conversation {
        Conversation(
            name, "POST / HTTP/1.1\r\nHost: a\r\n\(fields)\r\n12345", 400, "malformed")
    }

    /// The head is a good one of the door's, so that the body is what ends it.
    private static func chunks(_ name: String, _ body: String) -> Conversation {
        var conversation = Conversation(name, body, 400, "malformed")
        conversation.isChunkedBody = true
        return conversation
    }
}
