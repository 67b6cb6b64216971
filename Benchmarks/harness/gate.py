"""Costs of a request that may not creep up: compared with Benchmarks/baseline.json."""

import json
import pathlib
from dataclasses import dataclass

from . import counting, load, messages
from .counting import PATHS, Path
from .stage import ROOT, Stage, resident

BASELINE = ROOT / "Benchmarks" / "baseline.json"
INSTRUCTIONS, SYSTEM_CALLS, ALLOCATIONS = "instructions", "system_calls", "allocations"

# What a figure may be above its baseline. Instructions of two runs differ by less than 1 %; what
# threads beside the worker do (the journal's, every few milliseconds) depends on the time that a
# run takes, which is a few hundredths of a system call or allocation for a request.
MARGIN = 0.05
# Events that arrive together are passed on together, which a busy machine makes them do.
EVENTS_MARGIN = 0.1
BESIDE_THE_WORKER = {INSTRUCTIONS: 0, SYSTEM_CALLS: 0.05, ALLOCATIONS: 0.05}
# What the project set out for, at light load with everything enforced. A few allocations in a
# thousand requests are those of threads beside the worker and of timers.
TARGETS = {INSTRUCTIONS: 10_000, SYSTEM_CALLS: 6.1, ALLOCATIONS: 0.05}
TARGET_PATHS = ("get", "post")

# Half a byte for each request of a long run, and five for each of a short one: what leaks shows,
# and what is made once, as tables that grow, does not.
GROWTH_MAX = 512 << 10


@dataclass(frozen=True)
class Counts:
    """How many requests each figure is taken from."""

    instructions: int = 400
    system_calls: int = 2_000
    allocations: int = 5_000


def counts_of(path: Path) -> Counts:
    # Events come at their own pace.
    return Counts() if path.each == 1 else Counts(400, 400, 800)


def figures(path: Path) -> dict[str, float]:
    """Raises Missing where this build of Weir does not serve the path."""
    counts = counts_of(path)
    found: dict[str, float] = {}
    with Stage() as stage:
        found[INSTRUCTIONS] = round(counting.instructions(stage, path, counts.instructions))
    with Stage() as stage:
        calls = counting.system_calls(stage, path, counts.system_calls)
        found[SYSTEM_CALLS] = round(sum(calls.values()), 2)
    with Stage() as stage:
        found[ALLOCATIONS] = round(counting.allocations(stage, path, counts.allocations), 2)
    return found


def margin_of(path: Path) -> float:
    return MARGIN if path.each == 1 else EVENTS_MARGIN


def judge(
    found: float, base: float | None, figure: str, margin: float = MARGIN
) -> tuple[bool, str]:
    """Whether a figure passes, and what to say."""
    if base is None:
        return False, "has no baseline (Benchmarks/check --update REASON)"
    most = base * (1 + margin) + BESIDE_THE_WORKER[figure]
    if found > most:
        return False, f"above the baseline {base:,g} (at most {most:,g})"
    if found < base * (1 - margin) - BESIDE_THE_WORKER[figure]:
        return True, f"below the baseline {base:,g}: Benchmarks/check --update REASON keeps the gain"
    return True, f"the baseline is {base:,g}"


def target_of(path: str, figure: str, found: float) -> str:
    if path not in TARGET_PATHS:
        return ""
    verdict = "met" if found <= TARGETS[figure] else "missed"
    return f"; target {TARGETS[figure]:,g} {verdict}"


def read_baseline(file: pathlib.Path = BASELINE) -> dict[str, dict[str, float]]:
    return json.loads(file.read_text())["figures"] if file.exists() else {}


def write_baseline(reason: str, found: dict[str, dict[str, float]]) -> None:
    merged = {**read_baseline(), **found}
    text = json.dumps({"reason": reason, "figures": merged}, indent=2)
    BASELINE.write_text(text + "\n")


def growth(requests: int) -> tuple[int, int]:
    """Anonymous memory that the enforced sidecar has gained, in bytes, over at least so many
    requests, and how many there were: GETs, POSTs and completions in turns at 64 connections,
    after as many connections and requests of each kind as it will see."""
    with Stage() as stage:
        process, port = counting.serve(stage, PATHS[0], [])
        loads = [
            ("/bytes/1024", None),
            ("/bytes/2048", messages.json_request()),
            (messages.CHAT_PATH, messages.chat_request()),
        ]

        def turns() -> int:
            return sum(load.wrk(stage, port, path, body, 64, 1).requests for path, body in loads)

        turns()
        before = resident(process.pid).anonymous
        done = 0
        while done < requests:
            done += turns()
        return resident(process.pid).anonymous - before, done
