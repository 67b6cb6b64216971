"""Conversations in which servers are known to disagree about where a request ends. Behind each
stands `GET /behind`, so that a disagreement shows as one request more, or one less."""

BEHIND = b"GET /behind HTTP/1.1\r\nHost: a\r\n\r\n"


def head(line, *fields, body=b""):
    return line + b"\r\n" + b"".join(field + b"\r\n" for field in fields) + b"\r\n" + body


def get(*fields, target=b"/", version=b"HTTP/1.1"):
    return head(b"GET " + target + b" " + version, b"Host: a", *fields)


def post(*fields, body=b"12345"):
    return head(b"POST / HTTP/1.1", b"Host: a", *fields, body=body)


def chunked(body):
    return post(b"Transfer-Encoding: chunked", body=body)


LINES = {
    "a plain request": get(),
    "an empty line in front": b"\r\n" + get(),
    "two empty lines in front": b"\r\n\r\n" + get(),
    "line feeds alone": b"GET / HTTP/1.1\nHost: a\n\n",
    "one line feed alone": b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
    "the empty line is a line feed": b"GET / HTTP/1.1\r\nHost: a\r\n\n",
    "carriage returns alone": b"GET / HTTP/1.1\rHost: a\r\r",
    "a carriage return in a value": get(b"X: a\rb"),
    "a carriage return before the line end": get(b"X: a\r"),
    "NUL in a value": get(b"X: a\0b"),
    "vertical tab in a value": get(b"X: a\x0bb"),
    "DEL in a value": get(b"X: a\x7fb"),
    "two spaces behind the method": b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a tab behind the method": b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "a space behind the version": b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
    "no version": b"GET /\r\n\r\n",
    "version in lower case": get(version=b"http/1.1"),
    "version 1.2": get(version=b"HTTP/1.2"),
    "version 2.0": get(version=b"HTTP/2.0"),
    "version of three digits": get(version=b"HTTP/1.10"),
    "version 1.0 with a body in chunks": head(
        b"POST / HTTP/1.0", b"Host: a", b"Transfer-Encoding: chunked", body=b"5\r\n12345\r\n0\r\n\r\n"
    ),
    "a method in lower case": head(b"get / HTTP/1.1", b"Host: a"),
    "a method that is no token": head(b"G(T / HTTP/1.1", b"Host: a"),
    "a method that nobody knows": head(b"BREW /pot HTTP/1.1", b"Host: a"),
}

TARGETS = {
    "a target with a fragment": get(target=b"/a#b"),
    "a target with a backslash": get(target=b"/a\\b"),
    "a target with a quote": get(target=b'/a"b'),
    "a target with a space": get(target=b"/a b"),
    "a target beyond ASCII": get(target="/ä".encode()),
    "a target with NUL": get(target=b"/\0"),
    "dots": get(target=b"/a/../b"),
    "an escaped slash": get(target=b"/a%2Fb"),
    "an escape that is none": get(target=b"/%zz"),
    "two slashes": get(target=b"//b/c"),
    "no slash": get(target=b"a"),
    "an asterisk for GET": get(target=b"*"),
    "an absolute target": head(b"GET http://a/x HTTP/1.1", b"Host: a"),
    "an absolute target elsewhere": head(b"GET http://b/x HTTP/1.1", b"Host: a"),
    "an absolute target without a path": head(b"GET http://a HTTP/1.1", b"Host: a"),
    "another scheme": head(b"GET ftp://a/ HTTP/1.1", b"Host: a"),
    "user information in the target": head(b"GET http://u@a/ HTTP/1.1", b"Host: a"),
}

FIELDS = {
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "a host in the target only": b"GET http://a/ HTTP/1.1\r\n\r\n",
    "two hosts": get(b"Host: b"),
    "one host twice": get(b"Host: a"),
    "an empty host": b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
    "a host with a path": b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "a host with a user": b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
    "a host with a comma": b"GET / HTTP/1.1\r\nHost: a,b\r\n\r\n",
    "space before the colon": get(b"X : b"),
    "space before the colon of the length": post(b"Content-Length : 5"),
    "an empty name": get(b": b"),
    "no colon": get(b"X"),
    "a folded value": get(b"X: b\r\n c"),
    "a folded value with a tab": get(b"X: b\r\n\tc"),
    "a first field with a space": b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
    "a name that is no token": get(b"X(: b"),
    "a name beyond ASCII": get("Xä: b".encode()),
    "a length in disguise": post(b"Content_Length: 5", body=b""),
    "HTTP/1.0 without a host": b"GET / HTTP/1.0\r\n\r\n",
    "101 fields": get(*[b"X: b"] * 100),
}

LENGTHS = {
    "a length": post(b"Content-Length: 5"),
    "a length of zero": post(b"Content-Length: 0", body=b""),
    "a body of GET": head(b"GET / HTTP/1.1", b"Host: a", b"Content-Length: 5", body=b"12345"),
    "no length": post(body=b""),
    "the same length twice": post(b"Content-Length: 5", b"Content-Length: 5"),
    "two lengths": post(b"Content-Length: 5", b"Content-Length: 6"),
    "two lengths in one": post(b"Content-Length: 5, 5"),
    "two lengths in one that differ": post(b"Content-Length: 5, 6"),
    "a length with a plus": post(b"Content-Length: +5"),
    "a negative length": post(b"Content-Length: -5"),
    "a length of minus zero": post(b"Content-Length: -0", body=b""),
    "a hexadecimal length": post(b"Content-Length: 0x5"),
    "a length with a space": post(b"Content-Length: 5 5"),
    "a length with a point": post(b"Content-Length: 5.0"),
    "a length with an underscore": post(b"Content-Length: 1_0"),
    "an empty length": post(b"Content-Length:"),
    "a length with a leading zero": post(b"Content-Length: 05"),
    "a length that wraps at 2^64": post(b"Content-Length: 18446744073709551621"),
    "a length with a vertical tab": post(b"Content-Length: \x0b5"),
    "a length behind a tab": post(b"Content-Length:\t5"),
    "a folded length": post(b"Content-Length:\r\n 5"),
}

CODINGS = {
    "chunks": chunked(b"5\r\n12345\r\n0\r\n\r\n"),
    "chunks with digits in both cases": chunked(b"00a\r\n1234567890\r\nB\r\n12345678901\r\n0\r\n\r\n"),
    "length before coding": post(
        b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"
    ),
    "coding before length": post(
        b"Transfer-Encoding: chunked", b"Content-Length: 5", body=b"0\r\n\r\n"
    ),
    "coding identity": post(b"Transfer-Encoding: identity", b"Content-Length: 5"),
    "coding in capitals": post(b"Transfer-Encoding: CHUNKED", body=b"0\r\n\r\n"),
    "coding that ends like chunked": post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n"),
    "chunked not last": post(b"Transfer-Encoding: chunked, gzip", body=b"0\r\n\r\n"),
    "chunked twice": post(b"Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n"),
    "two codings": post(
        b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"
    ),
    "coding and nonsense": post(
        b"Transfer-Encoding: chunked", b"Transfer-Encoding: cow", body=b"0\r\n\r\n"
    ),
    "coding behind a comma": post(b"Transfer-Encoding: , chunked", body=b"0\r\n\r\n"),
    "coding with a vertical tab": post(b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n"),
    "coding in quotes": post(b'Transfer-Encoding: "chunked"', body=b"0\r\n\r\n"),
    "coding with a parameter": post(b"Transfer-Encoding: chunked;q=1", body=b"0\r\n\r\n"),
    "a folded coding": post(b"Transfer-Encoding:\r\n chunked", body=b"0\r\n\r\n"),
    "an empty coding": post(b"Transfer-Encoding:", b"Content-Length: 5"),
    "an unknown coding": post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
    "coding in disguise": post(b"Transfer_Encoding: chunked", body=b"0\r\n\r\n"),
}

CHUNKS = {
    "a chunk extension": chunked(b"5;a=b\r\n12345\r\n0;c\r\n\r\n"),
    "a quoted chunk extension": chunked(b'5;a="b;c"\r\n12345\r\n0\r\n\r\n'),
    "space before a chunk extension": chunked(b"5 ;a\r\n12345\r\n0\r\n\r\n"),
    "a chunk extension without a name": chunked(b"5;\r\n12345\r\n0\r\n\r\n"),
    "a chunk extension that is no token": chunked(b"5;a[=b\r\n12345\r\n0\r\n\r\n"),
    "NUL in a chunk extension": chunked(b"5;a\0\r\n12345\r\n0\r\n\r\n"),
    "a line feed in a chunk extension": chunked(b"5;a\nb\r\n12345\r\n0\r\n\r\n"),
    "a carriage return in a chunk extension": chunked(b"5;a\rb\r\n12345\r\n0\r\n\r\n"),
    "a trailer": chunked(b"0\r\nX: y\r\n\r\n"),
    "a length in a trailer": chunked(b"0\r\nContent-Length: 5\r\n\r\n"),
    "a trailer without a colon": chunked(b"0\r\nXy\r\n\r\n"),
    "a folded trailer": chunked(b"0\r\nX: y\r\n z\r\n\r\n"),
    "a trailer ended by a line feed": chunked(b"0\r\nX: y\n\r\n"),
    "a chunk size that is none": chunked(b"g\r\n"),
    "an empty chunk size": chunked(b"\r\n0\r\n\r\n"),
    "a negative chunk size": chunked(b"-1\r\nA\r\n0\r\n\r\n"),
    "a chunk size with a plus": chunked(b"+1\r\nA\r\n0\r\n\r\n"),
    "a chunk size with 0x": chunked(b"0x1\r\nA\r\n0\r\n\r\n"),
    "a chunk size after a space": chunked(b" 1\r\nA\r\n0\r\n\r\n"),
    "a chunk size before a space": chunked(b"1 \r\nA\r\n0\r\n\r\n"),
    "a chunk size with an underscore": chunked(b"1_0\r\n" + b"A" * 16 + b"\r\n0\r\n\r\n"),
    "a chunk size ended by a line feed": chunked(b"1\nA\r\n0\r\n\r\n"),
    "a chunk ended by a line feed": chunked(b"1\r\nA\n0\r\n\r\n"),
    "a chunk longer than its size": chunked(b"1\r\nAB\r\n0\r\n\r\n"),
    "a chunk size above 2^64": chunked(b"10000000000000001\r\nA\r\n0\r\n\r\n"),
    "the last chunk ended by a line feed": chunked(b"0\r\n\n"),
    "the last chunk of many zeros": chunked(b"00000\r\n\r\n"),
}

CONNECTIONS = {
    "two requests in one write": get(target=b"/1") + get(target=b"/2"),
    "a request behind a body": post(b"Content-Length: 5") + get(target=b"/2"),
    "a request behind chunks": chunked(b"1\r\nA\r\n0\r\n\r\n") + get(target=b"/2"),
    "an empty line between requests": post(b"Content-Length: 5") + b"\r\n" + get(target=b"/2"),
    "close": get(b"Connection: close"),
    "keep-alive in HTTP/1.0": get(b"Connection: keep-alive", version=b"HTTP/1.0"),
    "HTTP/1.0 without keep-alive": get(version=b"HTTP/1.0"),
    "the length as a field of the hop": post(b"Connection: content-length", b"Content-Length: 5"),
    "the coding as a field of the hop": post(
        b"Connection: transfer-encoding", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"
    ),
    "the host as a field of the hop": get(b"Connection: host"),
    "HEAD with a body": head(b"HEAD / HTTP/1.1", b"Host: a", b"Content-Length: 5", body=b"12345"),
    "OPTIONS with a body": head(
        b"OPTIONS / HTTP/1.1", b"Host: a", b"Content-Length: 5", body=b"12345"
    ),
    "a request in a body": post(
        b"Content-Length: %d" % len(get(target=b"/inside")), body=get(target=b"/inside")
    ),
    "an unknown expectation": post(b"Expect: 200-ok", b"Content-Length: 5"),
    "an upgrade to h2c": get(
        b"Connection: upgrade, http2-settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk"
    ),
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}

ALL = {**LINES, **TARGETS, **FIELDS, **LENGTHS, **CODINGS, **CHUNKS, **CONNECTIONS}
