#!/usr/bin/env python3
"""An honest provider of chat completions: its answers say what they used, and it keeps its own
books of that, for whoever audits the mesh. Never stopped, killed or cut off from its sidecar,
because it is the truth that everything else is compared with.

    agent.py AGENT HOST PORT

`GET /books` lists [user, request, input tokens, output tokens] of everything that it worked on,
`GET /sums` what that was worth for each user, in billionths of a dollar."""

import asyncio
import functools
import hashlib
import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT / "Benchmarks"), str(ROOT / "Tests" / "Chaos")]
from harness.budgets.upstream import chunk, compact, event, head, reply  # noqa: E402

from chaos import documents  # noqa: E402

HEAD_BYTES_MAX = 64 << 10
STREAM_PARTS = 5


class Books:
    def __init__(self) -> None:
        self.entries: list[tuple[str, str, int, int]] = []
        self.sums: dict[str, int] = {}

    def owe(self, asked: "Asked") -> None:
        """Due as soon as the work begins, whether anybody waits for the answer or not."""
        self.entries.append((asked.user, asked.number, asked.input_tokens, asked.output_tokens))
        cost = documents.cost(asked.input_tokens, asked.output_tokens)
        self.sums[asked.user] = self.sums.get(asked.user, 0) + cost


class Asked:
    """A request. Its prompt begins with who asks, the number, and how long to take; what it uses
    follows from that and its limit."""

    def __init__(self, agent: str, body: bytes) -> None:
        fields = json.loads(body)
        words = fields["messages"][-1]["content"].split()
        self.user, self.number, delay = words[:3]
        self.delay = int(delay) / 1000
        self.model = documents.MODELS[agent]
        most = fields.get("max_completion_tokens") or fields["max_tokens"]
        share = hashlib.sha256(f"{agent} {self.number}".encode()).digest()[0]
        self.input_tokens = len(words)
        self.output_tokens = 1 + (most - 1) * share // 512
        self.stream = bool(fields.get("stream"))
        self.wants_usage = bool((fields.get("stream_options") or {}).get("include_usage"))

    @property
    def usage(self) -> dict[str, int]:
        total = self.input_tokens + self.output_tokens
        return {
            "prompt_tokens": self.input_tokens,
            "completion_tokens": self.output_tokens,
            "total_tokens": total,
        }

    def answer(self, kind: str, choices: list[dict], **more: object) -> dict:
        common = {"id": "chatcmpl-1", "object": kind, "created": 1_700_000_000}
        return {**common, "model": self.model, "choices": choices, **more}


async def serve(
    agent: str, books: Books, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    try:
        while True:
            start = await reader.readuntil(b"\r\n\r\n")
            fields = [line.partition(b":") for line in start.split(b"\r\n")[1:]]
            lengths = [value for name, _, value in fields if name.lower() == b"content-length"]
            body = await reader.readexactly(int(lengths[0]) if lengths else 0)
            method, path = start.split(b" ", 2)[:2]
            if method == b"POST":
                await complete(Asked(agent, body), writer, books)
            else:
                shown = {b"/books": books.entries, b"/sums": books.sums}.get(path)
                reply(writer, "404 Not Found" if shown is None else "200 OK", compact(shown))
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def complete(asked: Asked, writer: asyncio.StreamWriter, books: Books) -> None:
    books.owe(asked)
    if not asked.stream:
        await asyncio.sleep(asked.delay)
        message = {"role": "assistant", "content": " ".join(["word"] * asked.output_tokens)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        reply(
            writer, "200 OK", compact(asked.answer("chat.completion", [choice], usage=asked.usage))
        )
        return
    writer.write(head("200 OK", "text/event-stream", None))
    for part in parts(asked):
        writer.write(chunk(part))
        await asyncio.sleep(asked.delay / STREAM_PARTS)
    writer.write(chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
    await writer.drain()


def parts(asked: Asked) -> list[bytes]:
    kind = "chat.completion.chunk"
    ends = [asked.output_tokens * at // STREAM_PARTS for at in range(STREAM_PARTS + 1)]
    found = []
    for start, end in zip(ends, ends[1:]):
        delta = {"index": 0, "delta": {"content": "word " * (end - start)}, "finish_reason": None}
        found.append(event(asked.answer(kind, [delta])))
    last = {"index": 0, "delta": {}, "finish_reason": "stop"}
    found.append(event(asked.answer(kind, [last])))
    if asked.wants_usage:
        found.append(event(asked.answer(kind, [], usage=asked.usage)))
    return found


async def main(agent: str, host: str, port: int) -> None:
    handler = functools.partial(serve, agent, Books())
    server = await asyncio.start_server(handler, host, port, limit=HEAD_BYTES_MAX)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
