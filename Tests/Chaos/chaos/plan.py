"""Which fault comes when: pure, and the same for the same seed.

Kinds are drawn from a bag that holds each once, so every kind comes before any comes again. A fault
goes to a target that has none at that time; two faults at once on different targets are wanted."""

import random
from collections import Counter
from dataclasses import dataclass
from enum import Enum

GATEWAYS = ("gateway-1", "gateway-2")
SIDECARS = ("alpha-1", "alpha-2", "beta-1", "beta-2")
CONTROL_PLANES = ("control-plane-1", "control-plane-2")
REDIS = ("redis",)
ARCHIVE = ("archive",)
NODES = (*GATEWAYS, *SIDECARS, *CONTROL_PLANES, *REDIS, *ARCHIVE)

ROLES = {
    "gateway": GATEWAYS,
    "sidecar": SIDECARS,
    "control-plane": CONTROL_PLANES,
    "redis": REDIS,
}
WAYS = (
    ("gateway", "control-plane"),
    ("gateway", "sidecar"),
    ("sidecar", "control-plane"),
    ("control-plane", "redis"),
    ("control-plane", "archive"),
)
# A lease admits for 60 s; what is stopped for longer wakes up with leases that are over.
LEASE_SECONDS = 60


class Action(Enum):
    KILL = "kill"
    """kill -9, and a start after a while."""
    STOP = "stop"
    """SIGSTOP, and SIGCONT before a lease is over."""
    STOP_LONG = "stop-long"
    """SIGSTOP, and SIGCONT after every lease is over."""
    SLEEP = "sleep"
    """A machine that sleeps: while it is stopped, CLOCK_BOOTTIME passes the end of every lease."""
    PARTITION = "partition"
    """Nothing passes between two nodes, in both directions or in one."""
    UNPLUG = "unplug"
    """The cable of one node is out."""
    CLOCK = "clock"
    """The wall clock of one node jumps, and stays there."""


@dataclass(frozen=True)
class Fault:
    at: float
    """Seconds after the load began."""
    action: Action
    kind: str
    """What is counted: the action, and whom it meets."""
    targets: tuple[str, ...]
    """One node, or both ends of a way: sender and receiver."""
    seconds: float
    """Until it is undone; of a clock 0, because it stays."""
    jump: float = 0
    """Seconds that a clock is set ahead of the mesh's time, or that a machine sleeps."""
    is_one_way: bool = False

    def __str__(self) -> str:
        how = f" for {self.seconds:.1f} s" if self.seconds else ""
        jump = f", {self.jump:+.0f} s" if self.jump else ""
        way = " (one way)" if self.is_one_way else ""
        return f"{self.at:6.1f} s  {self.kind:<32} {' > '.join(self.targets)}{way}{how}{jump}"

    @property
    def ends(self) -> float:
        return self.at + self.seconds


@dataclass(frozen=True)
class Kind:
    action: Action
    roles: tuple[str, ...]

    @property
    def name(self) -> str:
        return "-".join((self.action.value, *self.roles))


def kinds(*, has_network: bool, is_long: bool) -> list[Kind]:
    """`is_long`: there is time for a stop that outlasts a lease."""
    found = [
        Kind(action, (role,))
        for action in (Action.KILL, Action.STOP, Action.CLOCK)
        for role in ROLES
    ]
    # Where money is held. Others have no lease that could be over.
    found += [Kind(Action.SLEEP, (role,)) for role in ("gateway", "sidecar")]
    if is_long:
        found += [Kind(Action.STOP_LONG, (role,)) for role in ("gateway", "sidecar")]
    if has_network:
        found += [Kind(Action.PARTITION, way) for way in WAYS]
        found += [Kind(Action.UNPLUG, (role,)) for role in ("gateway", "sidecar", "control-plane")]
    return found


@dataclass(frozen=True)
class Pace:
    seconds: float
    """How long there are faults."""
    gap: float
    """Between the beginnings of two, on average."""
    lasts: tuple[float, float]
    """The shortest and the longest time until a fault is undone."""

    @property
    def is_long(self) -> bool:
        return self.seconds >= 2 * LEASE_SECONDS


SHORT = Pace(seconds=36, gap=1.4, lasts=(0.3, 3))
LONG = Pace(seconds=150, gap=2.5, lasts=(0.3, 9))


def schedule(seed: int, pace: Pace, *, has_network: bool) -> list[Fault]:
    draw = random.Random(seed)
    known = kinds(has_network=has_network, is_long=pace.is_long)
    busy: dict[str, float] = {}
    faults: list[Fault] = []
    bag: list[Kind] = []
    for slot in range(int(pace.seconds / pace.gap)):
        at = (slot + draw.uniform(0.1, 0.9)) * pace.gap
        if not bag:
            bag = draw.sample(known, len(known))
            # What lasts longest begins first, or the round would wait for its end.
            bag.sort(key=lambda kind: kind.action is Action.STOP_LONG and not faults)
        fault = _next(draw, bag, at, pace, busy)
        if fault is not None:
            faults.append(fault)
            for target in fault.targets:
                busy[target] = max(busy.get(target, 0), fault.ends + 0.5)
    return faults


def _next(
    draw: random.Random, bag: list[Kind], at: float, pace: Pace, busy: dict[str, float]
) -> Fault | None:
    """The last of the bag for which somebody is free."""
    for place in range(len(bag) - 1, -1, -1):
        kind = bag[place]
        free = [[node for node in _members(role) if busy.get(node, 0) <= at] for role in kind.roles]
        if all(free):
            del bag[place]
            return _fault(draw, kind, tuple(draw.choice(nodes) for nodes in free), at, pace)
    return None


def _members(role: str) -> tuple[str, ...]:
    return ROLES.get(role, ARCHIVE)


def _fault(
    draw: random.Random, kind: Kind, targets: tuple[str, ...], at: float, pace: Pace
) -> Fault:
    seconds = draw.uniform(*pace.lasts)
    jump, is_one_way = 0.0, False
    match kind.action:
        case Action.STOP_LONG:
            seconds = LEASE_SECONDS + draw.uniform(2, 8)
        case Action.SLEEP:
            seconds, jump = draw.uniform(0.2, 2), LEASE_SECONDS + draw.uniform(2, 600)
        case Action.CLOCK:
            # Less than half a day, so that no step leaves the day.
            seconds, jump = 0.0, draw.choice((-1, 1)) * draw.uniform(2, 18_000)
        case Action.PARTITION:
            is_one_way = draw.random() < 0.4
            if draw.random() < 0.5:
                targets = targets[::-1]
        case Action.KILL | Action.STOP | Action.UNPLUG:
            pass
    times = (round(at, 3), round(seconds, 3), round(jump, 3))
    return Fault(times[0], kind.action, kind.name, targets, times[1], times[2], is_one_way)


def never(faults: list[str], known: list[Kind]) -> list[str]:
    """The kinds that are not among those that were injected."""
    counted = Counter(faults)
    return [kind.name for kind in known if not counted[kind.name]]
