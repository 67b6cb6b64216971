"""Rounds of chaos, one after the other; see scripts/chaos --help."""

import argparse
import asyncio
import pathlib
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "Benchmarks"))

from . import audit, network, plan  # noqa: E402
from .documents import dollars  # noqa: E402
from .process import Trouble  # noqa: E402
from .round import Outcome, Round  # noqa: E402

LOGS = ROOT / ".build" / "chaos"


def say(text: str) -> None:
    print(text, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/chaos")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--plan", action="store_true")
    options = parser.parse_args()
    pace = plan.SHORT if options.short else plan.LONG
    seed = options.seed if options.seed is not None else int(time.time())
    if options.plan:
        for fault in plan.schedule(seed, pace, has_network=True):
            say(str(fault))
        return 0
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(130))
    nodes = network.made(list(plan.NODES))
    if nodes.lacks:
        say(f"SKIPPED partitions and unplugged nodes: no network namespaces here ({nodes.lacks})")
    deadline = None if options.minutes is None else time.monotonic() + options.minutes * 60
    rounds = options.rounds or (1 if deadline is None else None)
    outcomes: list[Outcome] = []
    while True:
        if not one(seed + len(outcomes), pace, nodes, outcomes):
            return 1
        if rounds is not None and len(outcomes) >= rounds:
            break
        if deadline is not None and time.monotonic() >= deadline:
            break
    show(outcomes)
    return 0


def one(
    seed: int,
    pace: plan.Pace,
    nodes: network.Namespaces | network.Loopback,
    outcomes: list[Outcome],
) -> bool:
    say(f"seed {seed}")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="weir-chaos-"))
    # The user that PostgreSQL runs as has to pass.
    folder.chmod(0o755)
    (folder / "log").mkdir()
    work = Round(seed, pace, folder, nodes, say)
    try:
        outcome = asyncio.run(work.run())
    except (Exception, SystemExit) as problem:
        tell(problem, work, folder)
        return False
    finally:
        work.mesh.end()
        shutil.rmtree(folder, ignore_errors=True)
    outcomes.append(outcome)
    say(
        f"  served {served(outcome.answers)} of {sum(outcome.answers.values())},"
        f" {sum(outcome.faults.values())} faults; {outcome.records} records ="
        f" {dollars(outcome.spent)} USD; {outcome.broken_off} broke off, {dollars(outcome.beyond)}"
        f" USD beyond the agents' books; right after {outcome.quiet_seconds:.0f} s;"
        f" {outcome.seconds:.0f} s in all"
    )
    return True


def served(answers: Counter) -> int:
    return sum(answers[kind] for kind in ("chat", "stream", "analysis"))


def tell(problem: BaseException, work: Round, folder: pathlib.Path) -> None:
    while isinstance(problem, BaseExceptionGroup):
        problem = problem.exceptions[0]
    say(f"FAILED seed {work.outcome.seed}: {problem}")
    if not isinstance(problem, Trouble):
        traceback.print_exception(problem)
    say(f"answers: {dict(work.outcome.answers)}")
    say("The faults of this round:")
    for fault in work.faults:
        say(f"  {fault}")
    kept = LOGS / str(work.outcome.seed)
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(folder / "log", kept)
    (kept / "state.txt").write_text(audit.evidence(work.mesh))
    say(f"The logs are in {kept}. Again: scripts/chaos {again(work)}")


def again(work: Round) -> str:
    short = "" if work.pace.is_long else "--short "
    return f"{short}--seed {work.outcome.seed}"


def show(outcomes: list[Outcome]) -> None:
    faults: Counter = sum((outcome.faults for outcome in outcomes), Counter())
    answers: Counter = sum((outcome.answers for outcome in outcomes), Counter())
    say("")
    for kind, count in sorted(faults.items()):
        say(f"{count:6d}  {kind}")
    say(f"{sum(faults.values()):6d}  faults in all")
    say("")
    for kind, count in sorted(answers.items()):
        say(f"{count:6d}  {kind}")
    say("")
    say(f"{len(outcomes)} passed, 0 failed")


if __name__ == "__main__":
    sys.exit(main())
