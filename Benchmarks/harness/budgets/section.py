"""The section of docs/benchmarks.md: written from the results of one run."""

import dataclasses
import datetime
from dataclasses import dataclass, field

from ..figures import Spread
from ..report import commit, machine, table
from ..stage import ROOT
from . import litellm
from .client import Notes
from .figures import (
    cpu_milliseconds,
    first_byte_milliseconds,
    milliseconds,
    part_milliseconds,
    rounds_together,
    verdicts,
)
from .phases import REFUSED_IN_ROW, SPENDING_DELAY_MS, Outcome, Plan, Spending, spending_of
from .workload import dollars

NOTES = ROOT / "Benchmarks" / "budgets-notes.md"
"""What people explain."""
MET = {True: "met", False: "**missed**", None: "not measured"}


@dataclass
class Results:
    command: str
    day: str
    machine: list[str]
    versions: dict[str, str]
    plan: dict
    outcomes: list[Outcome] = field(default_factory=list)
    not_strict: Spending | None = None
    """LiteLLM by its defaults, one user."""
    missing: dict[str, str] = field(default_factory=dict)
    minutes: float = 0

    @staticmethod
    def begun(command: str, plan: Plan) -> "Results":
        day = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
        versions = {"Weir": commit(), "LiteLLM": litellm.version()}
        return Results(command, day, machine(), versions, dataclasses.asdict(plan))

    def as_json(self) -> dict:
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(value: dict) -> "Results":
        results = Results(**value)
        results.outcomes = [Outcome.from_json(one) for one in value["outcomes"]]
        if value["not_strict"] is not None:
            results.not_strict = spending_of(value["not_strict"])
        return results

    def outcome(self, product: str) -> Outcome | None:
        return next((one for one in self.outcomes if one.product == product), None)


def text(results: Results) -> str:
    weir, other = results.outcome("Weir"), results.outcome("LiteLLM")
    lines = ["## Budgets, beside LiteLLM's proxy", "", *opening(results)]
    if weir is not None:
        rows = [[one.target, one.limit, one.found, MET[one.met]] for one in verdicts(weir, other)]
        lines += table(["Target of Weir", "", "found", ""], rows)
    lines += [method(results), NOTES.read_text().strip(), ""]
    lines += [*spending_lines(results), *latency_lines(results), *cost_lines(results)]
    return "\n".join(lines).rstrip() + "\n"


def opening(results: Results) -> list[str]:
    versions = ", ".join(f"{key} {value}" for key, value in results.versions.items())
    lines = [
        "What is spent of a budget, who is refused, and what enforcing it costs. Written by",
        "",
        f"    {results.command}",
        "",
        f"on {results.day}, in {results.minutes:.1f} minutes, on {', '.join(results.machine)}.",
        f"{versions}.",
        "",
    ]
    for name, reason in results.missing.items():
        lines += [f"**{name} was not measured**: {' '.join(reason.split())[:300]}", ""]
    return lines


def method(results: Results) -> str:
    plan = results.plan
    one, fifty = dollars(plan["one"]["budget"]), dollars(plan["fifty"]["budget"])
    return f"""\
Each product has the same requests before the same upstream, one product after the other, all of
its processes on one core; load and upstream have another. **Weir**: two gateways, an agent's
sidecar, a control plane, and a Redis that has every write on its disk before it says so.
**LiteLLM**: two replicas of one worker each, and a Redis that writes nothing to a disk. Clients are
spread over gateways or replicas.

- Chat completions of three sizes (half allow 100 tokens of output, three of ten 300, two of ten
  600, with 40, 200 and 800 words of input), a third of them streams. An answer takes a tenth of the
  output that its request allows, so the worst case is about ten times what is paid.
- *Spent* is what the upstream says: price × usage of what it served, for each user. No product's
  own figure is used for anything.
- While budgets are used up the upstream takes {SPENDING_DELAY_MS} ms. Demand: mixed requests that
  would cost the budget if none were refused, then small ones until {REFUSED_IN_ROW} in a row are
  refused. One user has ${one} and {plan["clients"]} clients, half on each gateway;
  {plan["users"]} users have ${fifty} each and {plan["clients_of_each"]} clients, spread likewise.
- *Usable*: spent ÷ what can be spent without ever risking more than the budget, that is the budget
  less the worst case of the smallest request. A client that is refused with `Retry-After` waits and
  asks again, twice at most, as OpenAI's clients do (*asked again*).
- *Refused although it fitted*: refused for good, although from the question to the answer what was
  spent and everything in flight at its worst and the request at its worst fitted into the budget.
  *Although money was there* leaves out what was in flight.
- *An exchange* is a message of a gateway about leases or a user, whatever its reason; LiteLLM asks
  Redis for each request. Users who come back were away for {plan["away_seconds"]:.0f} s and more.
"""


def spending_lines(results: Results) -> list[str]:
    head = ["", "users", "spent ÷ budget", "usable", "served", "refused"]
    head += ["although it fitted", "although money was there", "asked again"]
    rows = []
    for outcome in results.outcomes:
        for found in (outcome.one, outcome.fifty):
            rows.append(spending_row(outcome.product, found))
    if results.not_strict is not None:
        rows.append(spending_row("LiteLLM, not strict", results.not_strict))
    return ["### Money", ""] + table(head, rows)


def spending_row(product: str, found: Spending) -> list[str]:
    record = found.notes
    counts = sorted(record.refused.items())
    statuses = ", ".join(f"{count:,} × {status}" for status, count in counts)
    return [
        product,
        str(len(found.spent)),
        Spread.of(found.shares).text(4) if len(found.spent) > 1 else f"{found.shares[0]:.4f}",
        f"{min(found.usable):.4f}",
        f"{len(record.served):,}",
        f"{record.refusals:,}" + (f" ({statuses})" if statuses else ""),
        f"{record.fitted:,}",
        f"{record.unspent:,}",
        f"{record.asked_again:,}",
    ]


def latency_lines(results: Results) -> list[str]:
    rows = []
    for outcome in results.outcomes:
        exchanges, known = rounds_together(outcome.rounds)
        back = outcome.returning
        rows += [
            latency_row(outcome.product, "first request of a user", outcome.cold, None),
            latency_row(outcome.product, "a user who comes back", back.notes, back.exchanges),
            latency_row(outcome.product, "users who stay, four clients", known, exchanges),
        ]
        times = [f"{first_byte_milliseconds(known, share):.1f} ms" for share in (0.5, 0.99)]
        rows.append([outcome.product, "the same, first byte of streams", *times, "", ""])
    head = ["", "", "median", "99 %", "requests", "exchanges"]
    lines = ["### Latency", ""]
    lines += ["With budgets on and money aplenty; the upstream answers at once.", ""]
    return lines + table(head, rows)


def latency_row(product: str, what: str, record: Notes, exchanges: int | None) -> list[str]:
    times = [f"{milliseconds(record, share):.1f} ms" for share in (0.5, 0.99)]
    asked = "" if exchanges is None else f"{exchanges:,}"
    return [product, what, *times, f"{len(record.served):,}", asked]


def cost_lines(results: Results) -> list[str]:
    rows = []
    for outcome in results.outcomes:
        for part in outcome.rounds[0].cpu:
            rows.append([outcome.product, part, part_milliseconds(outcome.rounds, part).text(3)])
        together = Spread.of([cpu_milliseconds(one) for one in outcome.rounds])
        rows.append([outcome.product, "all but Redis", f"**{together.text(3)}**"])
    lines = [
        "### CPU",
        "",
        "Milliseconds on a core for each request of users who stay, streams among them, and of the",
        "second after them; what the parts do while nobody asks is in it.",
        "",
    ]
    return lines + table(["", "", "each request"], rows)
