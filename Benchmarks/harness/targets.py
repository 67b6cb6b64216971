"""What the project set out to reach, as ratios of one run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import contenders as who
from . import gate
from .figures import Spread, ratios
from .measure import Memory

if TYPE_CHECKING:
    from .report import Results


@dataclass(frozen=True)
class Ratio:
    workload: str
    what: str
    other: str
    limit: float
    key: str = who.WEIR


# "Below" is a limit of 1.
RATIOS = [
    Ratio("get-64", "GET, 64 connections ÷ relay", who.RELAY, 1.15),
    Ratio("post-16", "POST ÷ relay", who.RELAY, 1.2),
    Ratio("sse-50", "events ÷ relay", who.RELAY, 1.15),
    Ratio("chat-16", "chat completions, metered ÷ relay", who.RELAY, 1.5, who.METERED),
    Ratio("sse-50", "events, metered ÷ relay", who.RELAY, 1.5, who.METERED),
    Ratio("get-64", "GET, 64 connections ÷ nginx", who.NGINX, 0.85),
    Ratio("get-64", "GET, 64 connections ÷ HAProxy", who.HAPROXY, 0.85),
    Ratio("get-16", "GET, 16 connections ÷ nginx", who.NGINX, 1),
    Ratio("get-16", "GET, 16 connections ÷ HAProxy", who.HAPROXY, 1),
    Ratio("post-16", "POST ÷ nginx", who.NGINX, 1),
    Ratio("post-16", "POST ÷ HAProxy", who.HAPROXY, 1),
    Ratio("get-64", "GET, 64 connections ÷ Envoy", who.ENVOY, 0.4),
    Ratio("h2-100", "HTTP/2 ÷ nghttpx", who.NGHTTPX, 1.15),
    Ratio("h2-100", "HTTP/2 ÷ nginx", who.NGINX, 0.6),
    Ratio("tls-64", "TLS ÷ nginx", who.NGINX, 0.9),
    Ratio("tls-64", "TLS ÷ Envoy", who.ENVOY, 0.5),
]


@dataclass(frozen=True)
class Verdict:
    target: str
    limit: str
    found: str
    """None: there is no figure."""
    met: bool | None


def verdicts(results: Results) -> list[Verdict]:
    found = [of_ratio(results, target) for target in RATIOS]
    return [*found, of_latency(results), *of_counts(), *of_memory(results)]


def of_counts() -> list[Verdict]:
    """What Benchmarks/check keeps: no time is in it, so that it needs no quiet machine."""
    baseline = gate.read_baseline()
    made = []
    for path in gate.TARGET_PATHS:
        for figure, limit in gate.TARGETS.items():
            value = baseline.get(path, {}).get(figure)
            what = f"{figure.replace('_', ' ')} of a {path.upper()} (Benchmarks/check)"
            text = "" if value is None else f"{value:,g}"
            met = None if value is None else value <= limit
            made.append(Verdict(what, f"{limit:,g}", text, met))
    return made


def of_ratio(results: Results, target: Ratio) -> Verdict:
    own = results.turns(target.workload, target.key)
    others = results.turns(target.workload, target.other)
    if not own or not others:
        return Verdict(target.what, f"{target.limit:g}", "", None)
    spread = ratios(own, others)
    return Verdict(target.what, f"{target.limit:g}", spread.text(2), spread.median <= target.limit)


def of_latency(results: Results) -> Verdict:
    what, limit = "median latency at 4,000 a second ÷ relay", 1.1
    own, others = results.turns("latency", who.WEIR), results.turns("latency", who.RELAY)
    if not own or not others:
        return Verdict(what, f"{limit:g}", "", None)
    pairs = zip(own, others, strict=True)
    spread = Spread.of([a.latency_us["median_us"] / b.latency_us["median_us"] for a, b in pairs])
    return Verdict(what, f"{limit:g}", spread.text(2), spread.median <= limit)


def of_memory(results: Results) -> list[Verdict]:
    mega, kilo = 1 << 20, 1 << 10
    plain, tls = (results.memory.get(f"{form}/{who.WEIR}") for form in ("h1", "tls"))
    cases = [
        ("memory, idle", plain, lambda m: m.idle, 8 * mega, mega, "MB"),
        ("memory, 1,000 connections", plain, lambda m: m.connected, 10 * mega, mega, "MB"),
        ("memory, TLS, idle", tls, lambda m: m.idle, 12 * mega, mega, "MB"),
        ("memory, a TLS connection", tls, lambda m: m.each, 20 * kilo, kilo, "KB"),
    ]
    made = []
    for what, found, take, limit, unit, unit_name in cases:
        text = f"{limit // unit} {unit_name}"
        if not isinstance(found, Memory):
            made.append(Verdict(what, text, "", None))
            continue
        value = take(found)
        made.append(Verdict(what, text, f"{value / unit:.1f} {unit_name}", value <= limit))
    return made
