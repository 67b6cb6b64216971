"""The requests of the workloads, byte for byte the same for every contender."""

import json

# With Host a head of about 330 bytes: what an agent's client really sends.
FIELDS = [
    ("Accept", "application/json"),
    ("Accept-Encoding", "identity"),
    ("Content-Type", "application/json"),
    ("Authorization", "Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0"),
    ("User-Agent", "benchmark/1.0"),
    ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
]
CHAT_PATH = "/v1/chat/completions"
MODEL = "bench-model"


def chat_request(size: int = 4096) -> bytes:
    """A chat completion with a prompt that fills it up to `size` bytes."""

    def of(prompt: str) -> bytes:
        messages = [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": prompt},
        ]
        fields = {"model": MODEL, "max_tokens": 512, "temperature": 0.7, "messages": messages}
        return json.dumps(fields, separators=(",", ":")).encode()

    words = "The quarterly report shows that revenue grew by twelve percent.\n" * (size // 32)
    return filled(of, words, size)


def stream_request(size: int = 4096) -> bytes:
    body = json.loads(chat_request(size))
    body["stream"] = True
    body["stream_options"] = {"include_usage": True}
    return json.dumps(body, separators=(",", ":")).encode()


def json_request(size: int = 2048) -> bytes:
    return filled(lambda text: json.dumps({"data": text}).encode(), "payload " * size, size)


def filled(make, text: str, size: int) -> bytes:
    """What `make` makes of the longest beginning of `text` with which it has at most `size`
    bytes."""
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if len(make(text[:middle])) <= size:
            low = middle
        else:
            high = middle - 1
    return make(text[:low])


def request_bytes(
    path: str, body: bytes | None, fields: list[tuple[str, str]] = FIELDS
) -> bytes:
    lines = [f"{'GET' if body is None else 'POST'} {path} HTTP/1.1", "Host: agent.local"]
    lines += [f"{name}: {value}" for name, value in fields]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + (body or b"")
