"""What is asked of a product, in the order in which it is asked, and what is noted of it."""

import asyncio
import dataclasses
import json
import time
import urllib.request
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass, field

from .client import Account, Client, Notes, Served, Strange
from .products import Product, Tier
from .workload import SMALL, Request, mean_actual, request

PHASE_SECONDS_MAX = 240
SETTLE_SECONDS = 1.0
SPENDING_DELAY_MS = 20
# When a user believes that his money is gone; between them he waits until what is settled late is.
REFUSED_IN_ROW = 4
REFUSED_PAUSE_SECONDS = 0.1
LAST_REQUESTS_MAX = 1_000


@dataclass(frozen=True)
class Plan:
    """How much of everything."""

    one: Tier
    fifty: Tier
    plenty: Tier
    clients: int
    users: int
    clients_of_each: int
    strangers: int
    away_seconds: float
    """Until they come back: longer than Weir leaves idle money with a gateway."""
    rounds: int
    requests_of_round: int

    @property
    def tiers(self) -> list[Tier]:
        return [self.one, self.fifty, self.plenty]


PLENTY = Tier("plenty", 1_000_000_000_000)
FULL = Plan(
    one=Tier("one", 500_000_000),
    fifty=Tier("fifty", 50_000_000),
    plenty=PLENTY,
    clients=4,
    users=50,
    clients_of_each=2,
    strangers=300,
    away_seconds=8,
    rounds=3,
    requests_of_round=400,
)
SHORT = dataclasses.replace(
    FULL,
    one=Tier("one", 60_000_000),
    fifty=Tier("fifty", 20_000_000),
    users=5,
    strangers=20,
    away_seconds=1,
    rounds=2,
    requests_of_round=60,
)


@dataclass
class Spending:
    """A phase in which more is asked for than there is money."""

    budget: int
    smallest: int
    """The least that a request may cost at worst."""
    notes: Notes
    spent: dict[str, int]
    """By user; what the upstream has served for him."""
    exchanges: int | None

    @property
    def shares(self) -> list[float]:
        return [spent / self.budget for spent in self.spent.values()]

    @property
    def usable(self) -> list[float]:
        """Of what may be spent without ever risking more than the budget: the smallest request
        must still fit at its worst."""
        reachable = self.budget - self.smallest
        return [min(1.0, spent / reachable) for spent in self.spent.values()]


@dataclass
class Round:
    """Requests with money aplenty."""

    notes: Notes
    cpu: dict[str, int]
    """Nanoseconds, by part."""
    exchanges: int | None

    def each(self, part: str) -> float:
        return self.cpu[part] / self.notes.requests


@dataclass
class Outcome:
    product: str
    one: Spending
    fifty: Spending
    cold: Notes
    returning: Round
    rounds: list[Round] = field(default_factory=list)
    seconds: float = 0

    @staticmethod
    def from_json(value: dict) -> "Outcome":
        return Outcome(
            product=value["product"],
            one=spending_of(value["one"]),
            fifty=spending_of(value["fifty"]),
            cold=notes_of(value["cold"]),
            returning=round_of(value["returning"]),
            rounds=[round_of(one) for one in value["rounds"]],
            seconds=value["seconds"],
        )


def spending_of(value: dict) -> Spending:
    return Spending(**{**value, "notes": notes_of(value["notes"])})


def round_of(value: dict) -> Round:
    return Round(**{**value, "notes": notes_of(value["notes"])})


def notes_of(value: dict) -> Notes:
    served = [Served(**one) for one in value["served"]]
    refused = {int(status): count for status, count in value["refused"].items()}
    return Notes(**{**value, "served": served, "refused": refused})


async def measured(product: Product, upstream: int, plan: Plan) -> Outcome:
    started = time.monotonic()
    # The first request of a process is no user's first: it opens connections.
    await plenty(product, plan, 20 * plan.clients)
    cold = await one_each(product, plan, 0)
    await asyncio.sleep(plan.away_seconds)
    returning = await watched(product, one_each(product, plan, 1))
    # The users of these were there at the warm-up, and stay.
    await plenty(product, plan, 20 * plan.clients)
    rounds = [
        await watched(product, plenty(product, plan, plan.requests_of_round))
        for _ in range(plan.rounds)
    ]
    one = await spending(product, upstream, plan.one, 1, plan.clients)
    fifty = await spending(product, upstream, plan.fifty, plan.users, plan.clients_of_each)
    seconds = time.monotonic() - started
    return Outcome(product.name, one, fifty, cold, returning, rounds, seconds)


async def only_one(product: Product, upstream: int, plan: Plan) -> Spending:
    await plenty(product, plan, 20 * plan.clients)
    return await spending(product, upstream, plan.one, 1, plan.clients)


async def spending(
    product: Product, upstream: int, tier: Tier, users: int, clients: int
) -> Spending:
    """Each user's clients work off one list together, half of them on each gateway."""
    record = Notes()
    exchanges = product.exchanges()
    work = []
    names = [f"{tier.name}-{number}" for number in range(users)]
    for name in names:
        account = Account(tier.budget)
        requests = demand(name, account)
        token = product.token(name, tier)
        for number in range(clients):
            port = product.ports[number % len(product.ports)]
            work.append((Client(port, token, account, record), requests))
    await together(product, record, work)
    books = await truth(upstream)
    spent = {name: books.get(name, {}).get("nano_usd", 0) for name in names}
    smallest = Request(names[-1], 9_999, SMALL, False, SPENDING_DELAY_MS).worst
    return Spending(tier.budget, smallest, record, spent, difference(product, exchanges))


def demand(user: str, account: Account) -> Iterator[Request]:
    """As many mixed requests as would use up the budget if none were refused; then small ones, as
    long as there is money for them."""
    mixed = round(account.budget / mean_actual())
    for number in range(mixed):
        yield request(user, number, SPENDING_DELAY_MS)
    account.refused_in_row = 0
    for number in range(mixed, mixed + LAST_REQUESTS_MAX):
        if account.refused_in_row >= REFUSED_IN_ROW:
            return
        yield Request(user, number, SMALL, False, SPENDING_DELAY_MS, REFUSED_PAUSE_SECONDS)


async def one_each(product: Product, plan: Plan, number: int) -> Notes:
    """One request of each of many users, one at a time, over connections that stand. The first
    number is of users whom nobody has seen before."""
    record = Notes()
    clients = [Client(port, "", Account(plan.plenty.budget), record) for port in product.ports]
    record.started = time.monotonic()
    for at in range(plan.strangers):
        user = f"stranger-{at}"
        client = clients[at % len(clients)]
        client.speak_for(product.token(user, plan.plenty), Account(plan.plenty.budget))
        await client.one(Request(user, number, SMALL, False, 0))
    record.ended = time.monotonic()
    for client in clients:
        client.close()
    return not_refused(product, record)


async def watched(product: Product, work: Awaitable[Notes]) -> Round:
    exchanges, before = product.exchanges(), product.cpu()
    record = await work
    # What a product does after its answers belongs to them.
    await asyncio.sleep(SETTLE_SECONDS)
    after = product.cpu()
    cpu = {part: after[part] - before[part] for part in after}
    return Round(record, cpu, difference(product, exchanges))


async def plenty(product: Product, plan: Plan, count: int) -> Notes:
    """Four clients of four users."""
    record = Notes()
    work = []
    for number in range(plan.clients):
        name = f"known-{number}"
        requests = iter([request(name, at, 0) for at in range(number, count, plan.clients)])
        port = product.ports[number % len(product.ports)]
        client = Client(port, product.token(name, plan.plenty), Account(plan.plenty.budget), record)
        work.append((client, requests))
    await together(product, record, work)
    return not_refused(product, record)


def not_refused(product: Product, record: Notes) -> Notes:
    if record.refusals:
        raise Strange(f"{product.name} refused {record.refused} with money aplenty")
    return record


async def together(
    product: Product, record: Notes, work: list[tuple[Client, Iterator[Request]]]
) -> None:
    record.started = time.monotonic()
    deadline = record.started + PHASE_SECONDS_MAX
    try:
        async with asyncio.TaskGroup() as group:
            for client, requests in work:
                group.create_task(client.work(requests, deadline))
    except* Strange as problems:
        raise Strange(f"{product.name}: {problems.exceptions[0]}{product.gone()}") from problems
    record.ended = time.monotonic()


def difference(product: Product, before: int | None) -> int | None:
    after = product.exchanges()
    return None if before is None or after is None else after - before


async def truth(upstream: int) -> dict[str, dict[str, int]]:
    def ask() -> dict:
        with urllib.request.urlopen(f"http://127.0.0.1:{upstream}/truth", timeout=10) as answer:
            return json.load(answer)

    return await asyncio.to_thread(ask)
