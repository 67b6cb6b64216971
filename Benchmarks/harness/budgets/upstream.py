#!/usr/bin/env python3
"""A provider of chat completions, whole and streamed, that keeps the accounts: price × usage of
what it served, for each user. Its usage follows from the request alone, so nobody has to trust a
product's own figures.

    upstream.py PORT

GET /truth tells {"USER": {"nano_usd": N, "requests": N}}."""

import asyncio
import itertools
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent))
from harness.budgets import workload  # noqa: E402

CREATED = 1_700_000_000
EVENTS = 8
HEAD_BYTES_MAX = 64 << 10


class Books:
    def __init__(self) -> None:
        self.users: dict[str, dict[str, int]] = {}

    def charge(self, user: str, input_tokens: int, output_tokens: int) -> None:
        account = self.users.setdefault(user, {"nano_usd": 0, "requests": 0})
        account["nano_usd"] += workload.cost(input_tokens, output_tokens)
        account["requests"] += 1


class Asked:
    """What a request says. Its usage is a number of words, which is what the price is for."""

    def __init__(self, body: bytes) -> None:
        fields = json.loads(body)
        words = fields["messages"][-1]["content"].split()
        tags = dict(word.split("=", 1) for word in words[:3])
        most = fields.get("max_completion_tokens") or fields["max_tokens"]
        self.user = tags["user"]
        self.delay = int(tags["delay"]) / 1000
        self.input_tokens = len(words)
        self.output_tokens = workload.used_output(most)
        self.stream = bool(fields.get("stream"))
        self.wants_usage = bool((fields.get("stream_options") or {}).get("include_usage"))

    @property
    def usage(self) -> dict[str, int]:
        return {
            "prompt_tokens": self.input_tokens,
            "completion_tokens": self.output_tokens,
            "total_tokens": self.input_tokens + self.output_tokens,
        }


def whole(asked: Asked) -> bytes:
    message = {"role": "assistant", "content": " ".join(["word"] * asked.output_tokens)}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return compact({**common("chat.completion"), "choices": [choice], "usage": asked.usage})


def common(kind: str) -> dict[str, object]:
    return {"id": "chatcmpl-1", "object": kind, "created": CREATED, "model": workload.MODEL}


def events(asked: Asked) -> list[bytes]:
    """The beginning, the words in eight parts, the usage and the end."""
    ends = [asked.output_tokens * at // EVENTS for at in range(EVENTS + 1)]
    words = [end - start for start, end in itertools.pairwise(ends)]
    deltas: list[dict] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": "word " * count} for count in words if count]
    chunks = [choice_event(delta, None) for delta in deltas] + [choice_event({}, "stop")]
    if asked.wants_usage:
        last = {**common("chat.completion.chunk"), "choices": [], "usage": asked.usage}
        chunks.append(event(last))
    return chunks + [b"data: [DONE]\n\n"]


def choice_event(delta: dict, reason: str | None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return event({**common("chat.completion.chunk"), "choices": [choice]})


def event(value: dict) -> bytes:
    return b"data: " + compact(value) + b"\n\n"


def compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def head(status: str, kind: str, length: int | None) -> bytes:
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{framing}\r\n\r\n".encode()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, books: Books) -> None:
    try:
        while True:
            start = await reader.readuntil(b"\r\n\r\n")
            fields = dict(
                (name.strip().lower(), value.strip())
                for name, _, value in (line.partition(b":") for line in start.split(b"\r\n")[1:])
            )
            body = await reader.readexactly(int(fields.get(b"content-length", b"0")))
            await answer(start.split(b" ", 2)[:2], body, writer, books)
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def answer(
    request: list[bytes], body: bytes, writer: asyncio.StreamWriter, books: Books
) -> None:
    method, path = request
    if method == b"GET" and path == b"/truth":
        reply(writer, "200 OK", compact(books.users))
        return
    if method != b"POST" or not path.endswith(b"/chat/completions"):
        reply(writer, "404 Not Found", b"{}")
        return
    asked = Asked(body)
    # Owed as soon as the work is done for somebody, whether he waits for it or not.
    books.charge(asked.user, asked.input_tokens, asked.output_tokens)
    if not asked.stream:
        await pause(asked.delay)
        reply(writer, "200 OK", whole(asked))
        return
    writer.write(head("200 OK", "text/event-stream", None))
    parts = events(asked)
    if asked.delay == 0:
        writer.write(b"".join(map(chunk, parts)) + b"0\r\n\r\n")
        return
    for part in parts:
        writer.write(chunk(part))
        await pause(asked.delay / len(parts))
    writer.write(b"0\r\n\r\n")
    await writer.drain()


async def pause(seconds: float) -> None:
    if seconds > 0:
        await asyncio.sleep(seconds)


def reply(writer: asyncio.StreamWriter, status: str, body: bytes) -> None:
    writer.write(head(status, "application/json", len(body)) + body)


async def main(port: int) -> None:
    books = Books()
    server = await asyncio.start_server(
        lambda reader, writer: serve(reader, writer, books), "127.0.0.1", port, limit=HEAD_BYTES_MAX
    )
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
