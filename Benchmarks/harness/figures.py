"""Arithmetic of the tables: what a turn cost, and ratios of the turns of one round, because what
disturbs a machine disturbs its neighbours in time alike."""

import statistics
from dataclasses import dataclass


@dataclass(frozen=True)
class Turn:
    """One contender under one load."""

    requests: int
    seconds: float
    cpu_nanoseconds: int
    latency_us: dict[str, float] | None = None

    def cost(self, per: int) -> float:
        """CPU-seconds for `per` requests."""
        return self.cpu_nanoseconds / 1e9 / self.requests * per

    @property
    def rate(self) -> float:
        return self.requests / self.seconds


@dataclass(frozen=True)
class Spread:
    median: float
    least: float
    most: float

    @staticmethod
    def of(values: list[float]) -> "Spread":
        return Spread(statistics.median(values), min(values), max(values))

    def text(self, digits: int) -> str:
        return f"{self.median:.{digits}f} ({self.least:.{digits}f}–{self.most:.{digits}f})"


def costs(turns: list[Turn], per: int) -> Spread:
    return Spread.of([turn.cost(per) for turn in turns])


def ratios(turns: list[Turn], others: list[Turn]) -> Spread:
    """Round by round; both had the same rounds."""
    pairs = zip(turns, others, strict=True)
    return Spread.of([one.cost(1) / other.cost(1) for one, other in pairs])


def rotated(items: list, round_number: int) -> list:
    """Nobody always goes first, or always behind the same one."""
    if not items:
        return items
    at = round_number % len(items)
    ahead = items[at:] + items[:at]
    return ahead if round_number // len(items) % 2 == 0 else ahead[::-1]
