"""docs/benchmarks.md: written from the results of one run, with the notes that people wrote."""

import dataclasses
import datetime
import os
import pathlib
import platform
import subprocess
from dataclasses import dataclass, field

from . import contenders as who
from . import peers
from .contenders import CONTENDERS
from .figures import Spread, Turn, costs, ratios
from .measure import DIRECT, Memory, Outcome, one_line
from .stage import ROOT
from .targets import verdicts
from .workloads import SECTIONS, WORKLOADS, Workload

REFERENCES = (who.RELAY, who.NGINX, who.HAPROXY, who.NGHTTPX, who.ENVOY)
TITLES = {
    "h1": "HTTP/1.1",
    "sse": "Streams of events",
    "bulk": "Large bodies",
    "tls": "TLS",
    "h2": "HTTP/2",
    "grpc": "gRPC",
    "latency": "Latency at a fixed rate",
    "memory": "Memory",
}


@dataclass
class Results:
    command: str
    day: str
    machine: list[str]
    versions: dict[str, str]
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    """FORM/CONTENDER → what it needs, or why that is not known."""
    memory: dict[str, Memory | str] = field(default_factory=dict)
    minutes: float = 0

    @staticmethod
    def begun(command: str) -> "Results":
        day = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
        versions = {"Weir": commit(), **peers.versions()}
        return Results(command, day, machine(), versions)

    def as_json(self) -> dict:
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(value: dict) -> "Results":
        results = Results(**value)
        for key, outcome in value["outcomes"].items():
            turns = {name: [Turn(**turn) for turn in made] for name, made in outcome["turns"].items()}
            results.outcomes[key] = Outcome(turns, outcome["missing"])
        for key, found in value["memory"].items():
            results.memory[key] = Memory(**found) if isinstance(found, dict) else found
        return results

    def turns(self, workload: str, key: str) -> list[Turn] | None:
        outcome = self.outcomes.get(workload)
        return outcome.turns.get(key) if outcome else None


def commit() -> str:
    done = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True
    )
    return done.stdout.strip() or "unknown"


def machine() -> list[str]:
    cpu = {}
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        cpu.setdefault(name.strip(), value.strip())
    model = cpu.get("model name", "")
    if model in ("", "unknown"):
        parts = (cpu.get("vendor_id"), cpu.get("cpu family"), cpu.get("model"))
        model = "{} family {} model {}".format(*parts)
    memory = pathlib.Path("/proc/meminfo").read_text().split()[1]
    return [
        f"{os.cpu_count()} cores ({model})",
        f"{int(memory) / 1048576:.0f} GB of memory",
        f"Linux {platform.release()}",
    ]


def name(key: str) -> str:
    return "direct" if key == DIRECT else CONTENDERS[key].name


def digits_of(value: float) -> int:
    return 2 if value >= 10 else 3


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return lines + ["| " + " | ".join(row) + " |" for row in rows] + [""]


def workload_lines(results: Results, workload: Workload) -> list[str]:
    outcome = results.outcomes[workload.key]
    references = [key for key in REFERENCES if key in outcome.turns]
    rounds = max((len(turns) for turns in outcome.turns.values()), default=0)
    lines = [f"### {workload.title}", ""]
    lines += [f"CPU-seconds of the proxy for {workload.unit}, {rounds} rounds.", ""]
    head = ["", "CPU-seconds", *(f"÷ {name(key)}" for key in references)]
    rows = []
    for key in workload.contenders:
        turns = outcome.turns.get(key)
        if turns is None:
            if key in outcome.missing:
                reason = one_line(outcome.missing[key])
                rows.append([name(key), f"not measured: {reason}", *([""] * len(references))])
            continue
        cost = costs(turns, workload.per)
        cells = [name(key), cost.text(digits_of(cost.median))]
        for other in references:
            same = other == key
            cells.append("1" if same else ratios(turns, outcome.turns[other]).text(2))
        rows.append(cells)
    return lines + table(head, rows)


def latency_lines(results: Results, workload: Workload) -> list[str]:
    outcome = results.outcomes[workload.key]
    lines = [
        f"### {workload.title}",
        "",
        "Microseconds from the moment at which a request was due to the end of its answer, and",
        "CPU-seconds of the proxy for 100,000 requests. The tails are shown, and nothing follows",
        "from them: on a machine like this one, those of the relay are noise, too.",
        "",
    ]
    columns = ["median_us", "p90_us", "p99_us", "max_us"]
    rows = []
    for key in (DIRECT, *workload.contenders):
        turns = outcome.turns.get(key)
        if turns is None:
            if key in outcome.missing:
                rows.append([name(key), f"not measured: {one_line(outcome.missing[key])}"] + [""] * 4)
            continue
        cells = [name(key)]
        for column in columns:
            spread = Spread.of([turn.latency_us[column] for turn in turns if turn.latency_us])
            cells.append(spread.text(0))
        cost = "" if key == DIRECT else costs(turns, workload.per).text(2)
        rows.append(cells + [cost])
    head = ["", "median", "90 %", "99 %", "slowest", "CPU-seconds"]
    return lines + table(head, rows)


def memory_text(found: Memory | str) -> str:
    if isinstance(found, str):
        return f"not measured: {one_line(found)}"
    mega = 1 << 20
    return (
        f"{found.idle / mega:.1f} MB idle, {found.connected / mega:.1f} MB with "
        f"{found.connections:,} connections ({found.each / 1024:.1f} KB each)"
    )


def memory_lines(results: Results) -> list[str]:
    lines = [
        "Resident memory of the process that serves, freshly started, and with idle connections of",
        "which each asked once. Most of what is resident while idle are pages of files that are in the",
        "page cache anyway (the program, its libraries, Weir's journal); the second column is the rest.",
        "",
    ]
    rows = []
    for place, found in results.memory.items():
        form, _, key = place.partition("/")
        row = [name(key), peers.FORMS[form]]
        if isinstance(found, str):
            rows.append([*row, f"not measured: {one_line(found)}", "", "", ""])
            continue
        mega = 1 << 20
        rows.append(
            [
                *row,
                f"{found.idle / mega:.1f} MB",
                f"{found.anonymous / mega:.1f} MB",
                f"{found.connected / mega:.1f} MB",
                f"{found.each / 1024:.1f} KB",
            ]
        )
    return lines + table(["", "", "idle", "no file's", "1,000 connections", "each"], rows)


def target_lines(results: Results) -> list[str]:
    rows = [
        [one.target, one.limit, one.found, {True: "met", False: "**missed**", None: "not measured"}[one.met]]
        for one in verdicts(results)
    ]
    return table(["Target", "at most", "found", ""], rows)


def text(results: Results) -> str:
    lines = [
        "# Benchmarks",
        "",
        "What a proxy costs, side by side in one run. Written by",
        "",
        f"    {results.command}",
        "",
        f"on {results.day}, in {results.minutes:.1f} minutes, on {', '.join(results.machine)}.",
        "Versions: " + ", ".join(f"{key} {value}" for key, value in results.versions.items()) + ".",
        "",
    ]
    lines += [method(), "## Targets", ""] + target_lines(results)
    notes = ROOT / "Benchmarks" / "notes.md"
    if notes.exists():
        lines += [notes.read_text().strip(), ""]
    for section in SECTIONS:
        part: list[str] = []
        for workload in WORKLOADS:
            if workload.section == section and workload.key in results.outcomes:
                make = latency_lines if workload.is_latency else workload_lines
                part += make(results, workload)
        if section == "memory" and results.memory:
            part += memory_lines(results)
        if part:
            lines += [f"## {TITLES[section]}", "", *part]
    return "\n".join(lines).rstrip() + "\n"


def method() -> str:
    return """\
One worker each, alone on one core; load generators and upstream share another. Everybody is started
once and idle when it is not their turn; rounds are interleaved, and contenders change places from
round to round. The key figure is the time that the proxy's threads and children were on a core
(`/proc/PID/task/*/schedstat`), for so many requests. A figure is a median, with the least and the most
in parentheses; a ratio is taken round by round. Ratios hold from one machine to another better than
seconds do, and differences below 5 % are noise.

- **byte relay**: moves bytes and parses nothing. No proxy on this machine can cost less.
- **Weir**: the release binary, standalone, with rate limit, concurrency, breaker, budget, metrics and
  its journal on the disk.
- **Weir, metered**: the same with usage read from answers, priced by tokens, and SHA-256 of both bodies.
- **Weir's data plane**: what is under both, admitting everything.
- **nginx, HAProxy, nghttpx, Envoy**: kept connections on both sides, no access log, a request id, their rate
  limit on where they have one (nghttpx has none); see `Benchmarks/peers`.
"""
