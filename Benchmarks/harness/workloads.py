"""What is measured: the loads, who takes part, and the unit in which the cost is told."""

from dataclasses import dataclass
from typing import Callable

from . import contenders as who
from . import load, messages
from .load import Load
from .stage import Stage

EVERYBODY = (who.RELAY, who.WEIR, who.NGINX, who.HAPROXY, who.NGHTTPX, who.ENVOY)
WITH_DATA_PLANE = (who.RELAY, who.DATA_PLANE, *EVERYBODY[1:])
WITH_METERED = (who.RELAY, who.WEIR, who.METERED, *EVERYBODY[2:])

# tools/upstream.c: events of a stream and milliseconds between them.
EVENTS, TICK_MS, STREAMS = 400, 5, 50
BULK_BYTES, BULK_COUNT = 8 << 20, 100
LATENCY_RATE = 4_000
GRPC_PATH = "/weir.benchmark.Echo/Call"
GRPC_BODY = b"\0" + (128).to_bytes(4, "big") + b"x" * 128
GRPC_FIELDS = {"Content-Type": "application/grpc", "te": "trailers", "Accept": "*/*"}


@dataclass(frozen=True)
class Workload:
    key: str
    section: str
    title: str
    form: str
    contenders: tuple[str, ...]
    """Asks the port for so many seconds."""
    run: Callable[[Stage, int, float], Load]
    """The cost is that of so many requests…"""
    per: int = 100_000
    """…which are called this…"""
    unit: str = "100,000 requests"
    """…and each request of the generator is so many of them."""
    each: int = 1
    rounds: int = 5
    seconds: float = 1.0
    is_latency: bool = False


def get(connections: int) -> Workload:
    return Workload(
        f"get-{connections}",
        "h1",
        f"GET 1 KB, {connections} connection{'s' if connections > 1 else ''}",
        "h1",
        WITH_DATA_PLANE,
        lambda stage, port, seconds: load.wrk(
            stage, port, "/bytes/1024", None, connections, seconds
        ),
    )


def events(stage: Stage, port: int, _: float) -> Load:
    """Streams of a fixed length, so that every event is counted."""
    return load.h2load(
        stage,
        port,
        messages.CHAT_PATH,
        clients=STREAMS,
        count=STREAMS,
        http1=True,
        body=messages.stream_request(),
        fields={"Accept": "text/event-stream"},
    )


def download(stage: Stage, port: int, _: float) -> Load:
    path = f"/bytes/{BULK_BYTES}"
    return load.h2load(stage, port, path, clients=4, count=BULK_COUNT, http1=True)


def upload(stage: Stage, port: int, _: float) -> Load:
    body = bytes(BULK_BYTES)
    return load.h2load(
        stage, port, "/bytes/64", clients=4, count=BULK_COUNT, http1=True, body=body
    )


def encrypted(key: str, title: str, form: str, mode: str, connections: int, **more) -> Workload:
    return Workload(
        key,
        "tls",
        title,
        form,
        EVERYBODY,
        lambda stage, port, seconds: load.own(
            stage,
            mode,
            port,
            "/bytes/1024",
            None,
            connections,
            seconds,
            tls=True,
            certificate=form == "mtls",
        ),
        rounds=3,
        **more,
    )


HANDSHAKES = {"per": 10_000, "unit": "10,000 connections"}

WORKLOADS = [
    get(1),
    get(16),
    get(64),
    Workload(
        "post-16",
        "h1",
        "POST 2 KB → 2 KB JSON, 16 connections",
        "h1",
        WITH_DATA_PLANE,
        lambda stage, port, seconds: load.wrk(
            stage, port, "/bytes/2048", messages.json_request(), 16, seconds
        ),
    ),
    Workload(
        "chat-16",
        "h1",
        "Chat completion 4 KB → 2 KB, 16 connections",
        "h1",
        WITH_METERED,
        lambda stage, port, seconds: load.wrk(
            stage, port, messages.CHAT_PATH, messages.chat_request(), 16, seconds
        ),
    ),
    Workload(
        "sse-50",
        "sse",
        f"Server-sent events, {STREAMS} streams",
        "h1",
        WITH_METERED,
        events,
        per=10_000,
        unit="10,000 events",
        each=EVENTS,
        rounds=3,
    ),
    Workload(
        "down-8m",
        "bulk",
        "8 MB answers, 4 connections",
        "h1",
        EVERYBODY,
        download,
        per=1_000,
        unit="1,000 bodies",
        rounds=3,
    ),
    Workload(
        "up-8m",
        "bulk",
        "8 MB requests, 4 connections",
        "h1",
        EVERYBODY,
        upload,
        per=1_000,
        unit="1,000 bodies",
        rounds=3,
    ),
    encrypted("tls-64", "TLS 1.3, GET 1 KB, 64 connections", "tls", "closed", 64),
    encrypted("tls-new", "TLS 1.3, a connection for each GET", "tls", "handshakes", 8, **HANDSHAKES),
    encrypted("mtls-64", "mTLS, GET 1 KB, 64 connections", "mtls", "closed", 64),
    encrypted("mtls-new", "mTLS, a connection for each GET", "mtls", "handshakes", 8, **HANDSHAKES),
    Workload(
        "h2-100",
        "h2",
        "HTTP/2, GET 1 KB, 1 connection × 100 streams",
        "h2",
        EVERYBODY,
        lambda stage, port, seconds: load.h2load(
            stage, port, "/bytes/1024", clients=1, streams=100, seconds=seconds
        ),
        rounds=3,
        seconds=1.5,
    ),
    Workload(
        "grpc-100",
        "grpc",
        "gRPC unary 128 B → 128 B, 1 connection × 100 calls",
        "grpc",
        EVERYBODY,
        lambda stage, port, seconds: load.h2load(
            stage,
            port,
            GRPC_PATH,
            clients=1,
            streams=100,
            seconds=seconds,
            body=GRPC_BODY,
            fields=GRPC_FIELDS,
        ),
        rounds=3,
        seconds=1.5,
    ),
    Workload(
        "latency",
        "latency",
        f"GET 1 KB, 16 connections, {LATENCY_RATE:,} a second",
        "h1",
        EVERYBODY,
        lambda stage, port, seconds: load.own(
            stage, "open", port, "/bytes/1024", None, 16, seconds, rate=LATENCY_RATE
        ),
        rounds=3,
        seconds=2.0,
        is_latency=True,
    ),
]
SECTIONS = ["h1", "sse", "bulk", "tls", "h2", "grpc", "latency", "memory"]
