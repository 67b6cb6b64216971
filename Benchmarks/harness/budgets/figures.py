"""Arithmetic of the section: percentiles, shares and what the targets say."""

import math
from dataclasses import dataclass

from ..figures import Spread
from .client import Notes
from .phases import Outcome, Round
from .products import STORE


def percentile(values: list[float], share: float) -> float:
    """The least value that this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)]


def milliseconds(record: Notes, share: float) -> float:
    return percentile([one.seconds for one in record.served], share) * 1000


def first_byte_milliseconds(record: Notes, share: float) -> float:
    streams = [one.first_byte_seconds for one in record.served if one.stream]
    return percentile(streams, share) * 1000


def cpu_milliseconds(one: Round) -> float:
    """For each request, without the store, which is Redis for both."""
    return sum(one.each(part) for part in one.cpu if part != STORE) / 1e6


def part_milliseconds(rounds: list[Round], part: str) -> Spread:
    return Spread.of([one.each(part) / 1e6 for one in rounds])


def local_share(exchanges: int | None, record: Notes) -> float | None:
    """Of requests that cannot have waited for an exchange, even if each exchange were another's."""
    if exchanges is None:
        return None
    return 1 - min(1.0, exchanges / record.requests)


def rounds_together(rounds: list[Round]) -> tuple[int | None, Notes]:
    record = Notes()
    exchanges: int | None = 0
    for one in rounds:
        record.served += one.notes.served
        if one.exchanges is None or exchanges is None:
            exchanges = None
        else:
            exchanges += one.exchanges
    return exchanges, record


@dataclass(frozen=True)
class Verdict:
    target: str
    limit: str
    found: str
    met: bool | None


def verdicts(weir: Outcome, other: Outcome | None) -> list[Verdict]:
    most = max(weir.one.shares + weir.fifty.shares)
    usable = min(weir.one.usable + weir.fifty.usable)
    cold = milliseconds(weir.cold, 0.99)
    fitted = weir.one.notes.fitted + weir.fifty.notes.fitted
    known = local_share(*rounds_together(weir.rounds))
    back = local_share(weir.returning.exchanges, weir.returning.notes)
    all_verdicts = [
        Verdict("spent ÷ budget, of any user", "at most 1.000", f"{most:.4f}", most <= 1),
        Verdict("usable budget, of any user", "at least 0.99", f"{usable:.4f}", usable >= 0.99),
        Verdict("refused although it fitted", "0", str(fitted), fitted == 0),
        share_verdict("without an exchange, users who stay", known),
        share_verdict("without an exchange, users who come back", back),
        Verdict("a user's first request, 99 %", "at most 10 ms", f"{cold:.1f} ms", cold <= 10),
    ]
    return all_verdicts + [cpu_verdict(weir, other)]


def share_verdict(target: str, share: float | None) -> Verdict:
    if share is None:
        return Verdict(target, "at least 99 %", "", None)
    return Verdict(target, "at least 99 %", f"{share * 100:.2f} %", share >= 0.99)


def cpu_verdict(weir: Outcome, other: Outcome | None) -> Verdict:
    target, limit = "LiteLLM's CPU time ÷ Weir's", "at least 50"
    if other is None:
        return Verdict(target, limit, "", None)
    ratio = cpu_ratio(weir, other)
    return Verdict(target, limit, ratio.text(0), ratio.median >= 50)


def cpu_ratio(weir: Outcome, other: Outcome) -> Spread:
    """Round by round, in the order in which they were."""
    pairs = zip(weir.rounds, other.rounds, strict=True)
    return Spread.of([cpu_milliseconds(theirs) / cpu_milliseconds(ours) for ours, theirs in pairs])
