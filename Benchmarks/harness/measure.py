"""Runs workloads: everybody is started once and idle when it is not their turn; rounds are
interleaved, and contenders change places from round to round."""

import sys
import time
from dataclasses import dataclass, field

from . import idle as clients
from .contenders import CONTENDERS, RELAY
from .figures import Spread, Turn, costs, ratios, rotated
from .load import LoadFailed
from .stage import Missing, Stage, cpu_nanoseconds, resident
from .workloads import EVENTS, TICK_MS, Workload

DIRECT = "direct"


@dataclass
class Outcome:
    """Of one workload: turns in the order of the rounds, or why there are none."""

    turns: dict[str, list[Turn]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Server:
    pid: int
    port: int


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def one_line(text: str) -> str:
    """Fits a cell of a table."""
    return " ".join(text.split()).replace("|", "/")[:200]


def latency_text(turns: list[Turn]) -> str:
    medians = [turn.latency_us["median_us"] for turn in turns if turn.latency_us]
    return f"  median {Spread.of(medians).median:.0f} µs" if medians else ""


class Runner:
    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.upstreams: dict[str, int] = {}
        self.servers: dict[tuple[str, str], Server | str] = {}

    def upstream(self, form: str) -> int:
        kind = "grpc" if form == "grpc" else "http"
        if kind not in self.upstreams:
            port = self.stage.port()
            if kind == "grpc":
                command = [str(self.stage.tool("grpc_upstream", "-lnghttp2")), str(port)]
            else:
                command = [str(self.stage.tool("upstream")), str(port), str(EVENTS), str(TICK_MS)]
            self.stage.start(f"upstream-{kind}", command, self.stage.load_core, port=port)
            self.upstreams[kind] = port
        return self.upstreams[kind]

    def server(self, key: str, form: str) -> Server | str:
        """That contender serving that form, or why it does not."""
        if (key, form) not in self.servers:
            self.servers[key, form] = self.started(key, form)
        return self.servers[key, form]

    def started(self, key: str, form: str) -> Server | str:
        contender = CONTENDERS[key]
        if reason := contender.cannot(form):
            return reason
        port = self.stage.port()
        try:
            command = contender.command(self.stage, form, port, self.upstream(form))
            core = self.stage.proxy_core
            process = self.stage.start(f"{key}-{form}", command, core, port=port)
        except Missing as problem:
            return str(problem)
        return Server(process.pid, port)

    def measure(
        self, workload: Workload, rounds: int, seconds: float, among: set[str]
    ) -> Outcome:
        outcome = Outcome()
        servers: dict[str, Server] = {}
        keys = [key for key in workload.contenders if key in among]
        if workload.is_latency:
            servers[DIRECT] = Server(0, self.upstream(workload.form))
        for key in keys:
            server = self.server(key, workload.form)
            if isinstance(server, str):
                outcome.missing[key] = server
            else:
                servers[key] = server
        for key in list(servers):
            # Connections, pools and caches are there before the first round.
            if reason := self.warmed(workload, servers[key]):
                outcome.missing[key] = reason
                del servers[key]
        for number in range(rounds):
            for key in rotated(list(servers), number):
                try:
                    turn = self.turn(workload, servers[key], seconds)
                except LoadFailed as problem:
                    # A contender that fails once is no contender of this workload.
                    outcome.missing[key] = str(problem)
                    del servers[key]
                    outcome.turns.pop(key, None)
                    continue
                outcome.turns.setdefault(key, []).append(turn)
        self.tell(workload, outcome)
        return outcome

    def warmed(self, workload: Workload, server: Server) -> str | None:
        try:
            workload.run(self.stage, server.port, 0.3)
        except LoadFailed as problem:
            return str(problem)
        return None

    def turn(self, workload: Workload, server: Server, seconds: float) -> Turn:
        before = cpu_nanoseconds(server.pid) if server.pid else 0
        load = workload.run(self.stage, server.port, seconds)
        after = cpu_nanoseconds(server.pid) if server.pid else 0
        count = load.requests * workload.each
        return Turn(count, load.seconds, after - before, load.latency_us)

    def tell(self, workload: Workload, outcome: Outcome) -> None:
        relay = outcome.turns.get(RELAY)
        say(f"{workload.title} [CPU-seconds for {workload.unit}]")
        for key, turns in outcome.turns.items():
            cost = costs(turns, workload.per).text(4)
            rate = Spread.of([turn.rate for turn in turns]).median
            ratio = f"  {ratios(turns, relay).text(3)} × relay" if relay and key != DIRECT else ""
            latency = latency_text(turns) if workload.is_latency else ""
            say(f"    {key:12} {cost:26} {rate:9,.0f}/s{ratio}{latency}")
        for key, reason in outcome.missing.items():
            say(f"    {key:12} not measured: {one_line(reason)}")


@dataclass(frozen=True)
class Memory:
    """Bytes resident: with nobody connected, and with so many idle connections; and how many of
    the idle ones are no file's."""

    idle: int
    connected: int
    connections: int
    anonymous: int

    @property
    def each(self) -> float:
        return (self.connected - self.idle) / self.connections


def memory(stage: Stage, key: str, form: str, connections: int) -> Memory | str:
    """Of a process of its own, so that what other workloads left behind does not count."""
    runner = Runner(stage)
    server = runner.started(key, form)
    if isinstance(server, str):
        return server
    time.sleep(0.5)
    idle = resident(server.pid)
    try:
        with clients.Connections(stage, server.port, form, connections):
            time.sleep(0.3)
            connected = resident(server.pid)
    except (OSError, Missing) as problem:
        return f"the connections were not served: {problem}"
    return Memory(idle.all, connected.all, connections, idle.anonymous)
