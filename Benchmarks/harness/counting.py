"""What one request costs in instructions, system calls and allocations: figures that hardly depend
on the machine's load, so that they can be a gate."""

import pathlib
import re
import signal
import socket
import subprocess
from dataclasses import dataclass
from typing import Callable

from . import contenders, load, messages, peers, weir
from .stage import Missing, Stage, need
from .workloads import GRPC_BODY, GRPC_FIELDS, GRPC_PATH

# Far enough apart that each is read alone, under valgrind and on a busy machine, too.
EVENTS, TICK_MS = 200, 4


@dataclass(frozen=True)
class Path:
    """One kind of request, and the variant of Weir that is asked."""

    name: str
    path: str
    body: bytes | None
    metered: bool = False
    form: str = "h1"
    """How many of what is counted one request is: the events of its stream."""
    each: int = 1
    unit: str = "request"


def stream(name: str, *, metered: bool) -> Path:
    return Path(
        name,
        messages.CHAT_PATH,
        messages.stream_request(),
        metered=metered,
        each=EVENTS,
        unit="event",
    )


PATHS = [
    Path("get", "/bytes/1024", None),
    Path("post", "/bytes/2048", messages.json_request()),
    Path("chat", messages.CHAT_PATH, messages.chat_request(), metered=True),
    stream("event", metered=False),
    stream("metered-event", metered=True),
    Path("tls", "/bytes/1024", None, form="tls"),
    Path("h2", "/bytes/1024", None, form="h2"),
    Path("grpc", GRPC_PATH, GRPC_BODY, form="grpc"),
]


class Client:
    """One connection, one request after the other: light load, and exactly as many as asked."""

    def __init__(self, port: int, stage: Stage | None = None) -> None:
        """With a stage, over TLS, with what that stage has of certificates."""
        self.socket = socket.create_connection(("127.0.0.1", port), 60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if stage:
            context = peers.client_context(stage, "tls")
            self.socket = context.wrap_socket(self.socket, server_hostname="agent.local")

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def ask(self, request: bytes, count: int) -> None:
        for _ in range(count):
            self.socket.sendall(request)
            self.read_answer()

    def follow(self, request: bytes, count: int) -> None:
        """Streams of events, to the last chunk of each."""
        for _ in range(count):
            self.socket.sendall(request)
            end = b""
            # Trailers may stand between the last chunk and the last line.
            while not (b"\r\n0\r\n" in end and end.endswith(b"\r\n\r\n")):
                end = (end + self.receive())[-4096:]

    def read_answer(self) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            data += self.receive()
        head, _, body = data.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise Missing(f"the answer is no 200: {(head + body)[:600].decode(errors='replace')}")
        match = re.search(rb"(?i)\ncontent-length: *(\d+)", head)
        length = int(match.group(1)) if match else 0
        while len(body) < length:
            body += self.receive()
        return body

    def receive(self) -> bytes:
        chunk = self.socket.recv(1 << 16)
        if not chunk:
            raise Missing("the connection was closed in mid-answer")
        return chunk


def serve(stage: Stage, path: Path, wrapper: list[str], binary: pathlib.Path | None = None, **more):
    """Upstream and Weir under `wrapper`; the process and its port."""
    if reason := contenders.weir_cannot(path.form):
        raise Missing(reason)
    upstream, listen = stage.port(), stage.port()
    if path.form == "grpc":
        command = [str(stage.tool("grpc_upstream", "-lnghttp2")), str(upstream)]
    else:
        command = [str(stage.tool("upstream")), str(upstream), str(EVENTS), str(TICK_MS)]
    stage.start("upstream", command, stage.load_core, port=upstream)
    arguments = weir.command(
        stage,
        f"weir-{path.name}",
        listen,
        upstream,
        metered=path.metered,
        binary=binary,
        options=weir.form_options(stage, path.form),
        scheme=weir.scheme(path.form),
    )
    process = stage.start(
        "weir", wrapper + arguments, stage.proxy_core, port=listen, seconds=60, **more
    )
    return process, listen


class Asking:
    """Use as a context: brings a way to ask for a number of what is counted, on one connection
    where the form allows it."""

    def __init__(self, stage: Stage, path: Path, port: int) -> None:
        self.stage, self.path, self.port = stage, path, port
        self.client: Client | None = None

    def __enter__(self) -> Callable[[int], None]:
        path = self.path
        if path.form in ("h2", "grpc"):
            return self.by_h2load
        self.client = Client(self.port, self.stage if path.form == "tls" else None)
        fields = messages.FIELDS
        if path.each > 1:
            fields = [(n, "text/event-stream" if n == "Accept" else v) for n, v in fields]
        request = messages.request_bytes(path.path, path.body, fields)
        ask = self.client.ask if path.each == 1 else self.client.follow
        return lambda count: ask(request, requests_of(count, path))

    def __exit__(self, *_: object) -> None:
        if self.client:
            self.client.socket.close()

    def by_h2load(self, count: int) -> None:
        """A connection with a hundred streams at once, as in the workloads."""
        try:
            load.h2load(
                self.stage,
                self.port,
                self.path.path,
                clients=1,
                streams=100,
                count=count,
                body=self.path.body,
                fields=GRPC_FIELDS if self.path.form == "grpc" else None,
            )
        except load.LoadFailed as problem:
            raise Missing(f"this build does not serve it: {problem}") from problem


def requests_of(count: int, path: Path) -> int:
    """Two streams at least."""
    return max(2, count // path.each)


def counted(count: int, path: Path) -> int:
    """How many there were when `count` were asked for."""
    return requests_of(count, path) * path.each


def instructions(stage: Stage, path: Path, count: int, keep: pathlib.Path | None = None) -> float:
    """User instructions of the whole process for one request, by callgrind. `keep`: a folder for
    the profile, which callgrind_annotate shows."""
    need("valgrind", "valgrind")
    folder = keep or stage.folder
    output = folder / f"callgrind.{path.name}"
    for old in folder.glob(f"{output.name}.*"):
        old.unlink()
    wrapper = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={output}"]
    wrapper += ["--cache-sim=no", "--branch-sim=no"]
    process, port = serve(stage, path, wrapper, weir.stripped(stage))
    with Asking(stage, path, port) as ask:
        # Connections, pools and lazily made tables are there after these.
        ask(200)
        control("--zero", process.pid)
        ask(count)
        control("--dump", process.pid)
    stage.stop(process)
    dumps = sorted(folder.glob(f"{output.name}.*"), key=lambda file: file.stat().st_mtime)
    if not dumps:
        raise Missing("callgrind_control brought no dump")
    return total_of_dump(dumps[0].read_text()) / counted(count, path)


def control(what: str, pid: int) -> None:
    done = subprocess.run(["callgrind_control", what, str(pid)], capture_output=True, text=True)
    if done.returncode != 0 or "Error" in done.stdout + done.stderr:
        raise Missing(f"callgrind_control {what}: {done.stdout}{done.stderr}")


def total_of_dump(text: str) -> int:
    match = re.search(r"^(?:totals|summary): (\d+)", text, re.MULTILINE)
    if match is None:
        raise ValueError("a callgrind dump without a total")
    return int(match.group(1))


def self_costs(dump: str) -> dict[str, int]:
    """Instructions of each function by itself. A dump names a function once and then by number;
    the line behind `calls=` is the cost of what was called."""
    costs: dict[str, int] = {}
    names: dict[str, str] = {}
    current = ""
    skips = False
    for line in dump.splitlines():
        if line.startswith(("fn=", "cfn=")):
            number, _, name = line.partition("=")[2].partition(" ")
            name = names.setdefault(number, name)
            if line.startswith("fn="):
                current = name
        elif line.startswith("calls="):
            skips = True
        elif line[:1] in "0123456789+-*" and line:
            if not skips:
                costs[current] = costs.get(current, 0) + int(line.split()[1])
            skips = False
    return costs


def system_calls(stage: Stage, path: Path, count: int) -> dict[str, float]:
    """System calls of the whole process for one request, by name, by strace."""
    strace = need("strace", "strace")
    process, port = serve(stage, path, [])
    output = stage.folder / "strace.txt"
    with Asking(stage, path, port) as ask:
        ask(500)
        tracer = subprocess.Popen(
            [strace, "-f", "-c", "-o", str(output), "-p", str(process.pid)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        first = tracer.stderr.readline().decode()
        if "attached" not in first:
            tracer.wait(10)
            raise Missing(f"strace cannot look at the sidecar: {first.strip()}")
        ask(count)
        tracer.send_signal(signal.SIGINT)
        tracer.wait(10)
        tracer.stderr.close()
    stage.stop(process)
    found = calls_of_strace(output.read_text())
    return {name: calls / counted(count, path) for name, calls in found.items()}


def calls_of_strace(text: str) -> dict[str, int]:
    """The summary of `strace -c`: % time, seconds, usecs/call, calls, errors if any, name."""
    calls: dict[str, int] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 5 and words[0][0].isdigit() and words[-1] != "total":
            calls[words[-1]] = int(words[3])
    return calls


def allocations(stage: Stage, path: Path, count: int) -> float:
    """How often the whole process asks for memory for one request in the steady state."""
    library = stage.tool("allocations", "-shared", "-fPIC")
    counter = stage.folder / "allocations.count"
    counter.write_bytes(bytes(8))
    process, port = serve(
        stage,
        path,
        [],
        environment={"LD_PRELOAD": str(library), "WEIR_ALLOCATIONS": str(counter)},
    )

    def read() -> int:
        return int.from_bytes(counter.read_bytes(), "little")

    with Asking(stage, path, port) as ask:
        ask(2000)
        before = read()
        ask(count)
        after = read()
    stage.stop(process)
    if before == 0:
        raise Missing("nothing was counted: the program does not ask the C library for memory")
    return (after - before) / counted(count, path)
