#!/usr/bin/env python3
"""Attacks on a running sidecar, while honest clients are served: what they cost in memory, and what
the honest ones notice. Prints the table of `docs/hostility.md`.

    Tests/Wire/attacks.py [--connections N] [--seconds S] [ATTACK…]

Each attack opens N connections (1,000; the long form is 10,000) to a sidecar of its own on the
loopback. Meanwhile four honest clients send one request after the other. It passes when every
honest request is answered, and the sidecar's memory stays within what its limits say."""

import argparse
import asyncio
import collections
import pathlib
import resource
import socket
import struct
import tempfile
import time

import http2_floods
from recorder import Recorder
from weir import Weir

HONEST_CLIENTS = 4
# What the documents promise: 8 MB idle and 10 MB with 1,000 idle connections, in a release. A
# connection that waits for the rest of something holds what was said so far, and no more than a
# read of it; the rest is room for a debug build.
BASE_KB_MAX = 24 * 1024
CONNECTION_KB_MAX = 40
# What nghttp2 keeps of a connection besides.
SESSION_KB_MAX = 16

HONEST = b"GET /honest HTTP/1.1\r\nHost: a\r\n\r\n"


class Figures:
    def __init__(self):
        self.answered = 0
        self.failed = 0
        # The first words of what came instead of an answer.
        self.instead = collections.Counter()
        self.latencies = []
        self.closed = 0
        self.opened = 0

    def quantile(self, share):
        ordered = sorted(self.latencies)
        return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0


def memory_kb(process):
    for line in pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


async def be_honest(port, figures, stop):
    reader = writer = None
    while not stop.is_set():
        started = time.monotonic()
        try:
            if writer is None:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(HONEST)
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            if not head.startswith(b"HTTP/1.1 200 "):
                raise ConnectionError(head[:60])
            await asyncio.wait_for(reader.readexactly(2), 10)
            figures.answered += 1
            figures.latencies.append(time.monotonic() - started)
        except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError) as problem:
            figures.failed += 1
            figures.instead[str(problem)[:40] or type(problem).__name__] += 1
            if writer is not None:
                writer.close()
            writer = None
        await asyncio.sleep(0.005)


class Attacker:
    """One connection: says `first`, then a piece of `rest` every `pause` seconds."""

    def __init__(self, first, rest=b"", pause=1.0, piece=1, repeats=False, reads=True):
        self.first, self.rest, self.pause, self.piece = first, rest, pause, piece
        self.repeats, self.reads = repeats, reads

    async def run(self, port, figures, stop, open_slots):
        async with open_slots:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                figures.closed += 1
                return
        figures.opened += 1
        ended = asyncio.ensure_future(self.read(reader))
        try:
            writer.write(self.first)
            position = 0
            while not stop.is_set() and not ended.done():
                await asyncio.wait({ended}, timeout=self.pause)
                if ended.done():
                    break
                if position >= len(self.rest) and self.repeats:
                    position = 0
                if position < len(self.rest) and not writer.is_closing():
                    writer.write(self.rest[position : position + self.piece])
                    position += self.piece
        except OSError:
            pass
        finally:
            if ended.done():
                figures.closed += 1
            ended.cancel()
            writer.transport.abort()

    async def read(self, reader):
        if not self.reads:
            await asyncio.Event().wait()
        try:
            while await reader.read(65536):
                pass
        except OSError:
            pass


def reset(socket_):
    socket_.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Storm(Attacker):
    """Connects, says `first` and resets, again and again."""

    async def run(self, port, figures, stop, open_slots):
        while not stop.is_set():
            async with open_slots:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    figures.closed += 1
                    continue
                figures.opened += 1
                writer.write(self.first)
                reset(writer.get_extra_info("socket"))
                writer.transport.abort()
            await asyncio.sleep(self.pause)


class Flood(Attacker):
    """Connects, says `first`, hears the end of the connection (or nothing for a second), and does
    it again."""

    async def run(self, port, figures, stop, open_slots):
        while not stop.is_set():
            async with open_slots:
                try:
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    figures.closed += 1
                    continue
                figures.opened += 1
                writer.write(self.first)
                await asyncio.wait({asyncio.ensure_future(self.read(reader))}, timeout=1)
                writer.transport.abort()
            await asyncio.sleep(self.pause)


BIG_HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: " + b"b" * 1000 + b"\r\n"

RAPID_RESET = http2_floods.rapid_reset()
CONTINUATIONS = http2_floods.continuations()
PINGS = http2_floods.pings()
SETTINGS = http2_floods.settings()
BOMB = http2_floods.compression_bomb()

ATTACKS = {
    "idle": ("connections that say nothing", lambda: Attacker(b"")),
    "half-head": ("half a head, and silence", lambda: Attacker(b"GET / HTTP/1.1\r\nHost:")),
    "slow-head": (
        "a head of 30 KB, a field each second",
        lambda: Attacker(BIG_HEAD, BIG_HEAD[25:], 1.0, 1005, repeats=True),
    ),
    "slow-body": (
        "a body, a byte each second",
        lambda: Attacker(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n", b"x", 1.0, 1, True
        ),
    ),
    "slow-chunks": (
        "chunks of one byte with extensions, one each second",
        lambda: Attacker(
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"1;" + b"e" * 100 + b"\r\nx\r\n",
            1.0,
            107,
            True,
        ),
    ),
    "no-reader": (
        "answers of 1 MB that nobody reads",
        lambda: Attacker(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n", reads=False),
    ),
    "resets": ("requests and a reset, again and again", lambda: Storm(HONEST, pause=0.2)),
    "garbage": (
        "lines that are no HTTP, again and again",
        lambda: Storm(b"\x16\x03\x01\x02\x00nonsense\r\n\r\n", pause=0.2),
    ),
    "h2-half-block": (
        "HTTP/2: half a block of 12 KB, and silence",
        lambda: Attacker(http2_floods.half_block()),
    ),
    "h2-stalled": (
        "HTTP/2: an answer of 1 MB before a window of 0",
        lambda: Attacker(http2_floods.stalled_windows()),
    ),
    "h2-rapid-reset": (
        "HTTP/2: 1,000 requests and resets, again and again",
        lambda: Flood(RAPID_RESET, pause=0.2),
    ),
    "h2-continuations": (
        "HTTP/2: 2,000 CONTINUATION, again and again",
        lambda: Flood(CONTINUATIONS, pause=0.2),
    ),
    "h2-pings": ("HTTP/2: 10,000 PING, again and again", lambda: Flood(PINGS, pause=0.2)),
    "h2-settings": ("HTTP/2: 10,000 SETTINGS, again and again", lambda: Flood(SETTINGS, pause=0.2)),
    "h2-bomb": ("HTTP/2: 48 MB of fields in 16 KB, again and again", lambda: Flood(BOMB, pause=0.2)),
}


async def scrape(port):
    """As Prometheus does, which must not be kept waiting either."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    text = await asyncio.wait_for(reader.read(-1), 10)
    writer.close()
    if not text.startswith(b"HTTP/1.1 200 "):
        raise ConnectionError(text[:60])


async def attack(name, connections, seconds, weir):
    figures, stop = Figures(), asyncio.Event()
    # The kernel's backlog is not what is tried here.
    open_slots = asyncio.Semaphore(200)
    honest = [
        asyncio.create_task(be_honest(weir.port, figures, stop)) for _ in range(HONEST_CLIENTS)
    ]
    await asyncio.sleep(0.5)
    before = memory_kb(weir.process)
    make = ATTACKS[name][1]
    hostile = [
        asyncio.create_task(make().run(weir.port, figures, stop, open_slots))
        for _ in range(connections)
    ]
    peak, deadline = before, time.monotonic() + seconds
    while time.monotonic() < deadline:
        await asyncio.sleep(0.25)
        try:
            await scrape(weir.admin_port)
        except (OSError, asyncio.TimeoutError) as problem:
            figures.failed += 1
            figures.instead[f"/metrics: {problem}"[:40]] += 1
        peak = max(peak, memory_kb(weir.process))
    stop.set()
    await asyncio.gather(*honest, *hostile)
    return figures, before, peak


class Outcome:
    """What came of one attack, and what is wrong with it."""

    def __init__(self, name, connections, figures, before, peak, allowed_kb, ended, log):
        self.name, self.connections, self.figures = name, connections, figures
        self.before, self.peak = before, peak
        self.faults = []
        if figures.failed or not figures.answered:
            instead = dict(figures.instead.most_common(3))
            self.faults.append(f"{figures.failed} honest requests failed: {instead}")
        if peak > allowed_kb:
            self.faults.append(f"{peak} KB of memory, {allowed_kb} KB are allowed")
        if ended != 0:
            self.faults.append(f"the sidecar ended with {ended}:\n{log[-8000:]}")

    def row(self):
        figures = self.figures
        return (
            f"| {ATTACKS[self.name][0]} | {self.connections:,} | {self.before / 1024:.1f} "
            f"| {self.peak / 1024:.1f} | {figures.answered:,} | {figures.failed} "
            f"| {figures.quantile(0.5) * 1000:.1f} | {figures.quantile(0.99) * 1000:.1f} "
            f"| {'no' if self.faults else 'yes'} |"
        )

    HEAD = (
        "| Attack | Connections | MB before | MB at most | Honest answers | Failed | ms p50 "
        "| ms p99 | Holds |\n|---|---|---|---|---|---|---|---|---|"
    )


def run(name, connections, seconds, any_memory=False, workers=1):
    # Ours, the sidecar's (it inherits them) and the recorder's.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    each = CONNECTION_KB_MAX + (SESSION_KB_MAX if name.startswith("h2-") else 0)
    allowed = float("inf") if any_memory else BASE_KB_MAX + each * connections
    recorder = Recorder()
    with tempfile.TemporaryDirectory(prefix="weir-attack-") as folder:
        with Weir(pathlib.Path(folder), recorder.port, workers) as weir:
            figures, before, peak = asyncio.run(attack(name, connections, seconds, weir))
        ended = weir.process.returncode
        log = weir.log.read_text(errors="replace")
    recorder.close()
    return Outcome(name, connections, figures, before, peak, allowed, ended, log)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--connections", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument(
        "--any-memory", action="store_true", help="for a sidecar that a sanitizer looks into"
    )
    parser.add_argument("--workers", type=int, default=1, help="threads of the sidecar (1)")
    parser.add_argument("attacks", nargs="*", metavar="ATTACK", help=", ".join(ATTACKS))
    options = parser.parse_args()
    names = options.attacks or list(ATTACKS)
    for name in names:
        if name not in ATTACKS:
            parser.error(f"there is no attack {name}; there are {', '.join(ATTACKS)}")
    print(Outcome.HEAD, flush=True)
    failed = 0
    for name in names:
        outcome = run(
            name,
            options.connections,
            options.seconds,
            any_memory=options.any_memory,
            workers=options.workers,
        )
        print(outcome.row(), flush=True)
        for fault in outcome.faults:
            print(f"{name}: {fault}")
        failed += bool(outcome.faults)
    print(f"{len(names) - failed} passed, {failed} failed")
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
