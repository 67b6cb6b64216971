"""One round: a fresh mesh, its load and its faults; then everything is healed, the books must come
to agree, whoever has money left must get it, and books that are wrong must be found wrong."""

import asyncio
import pathlib
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from . import audit, checks, documents, plan, tamper
from .checks import Books
from .documents import Budget, User
from .injector import Injector
from .load import CHAT, Answer, Load, Request
from .mesh import Mesh
from .network import Loopback, Namespaces
from .process import Trouble

WATCH_SECONDS = 0.5
QUIET_SECONDS_MAX = 90
DRAIN_SECONDS_MAX = 120
# A run that serves less than this proves little.
SERVED_MIN = 100
# Idle money goes back within this; what a holder may keep of an account that is far from its limit
# goes back last.
IDLE_SECONDS_MAX = 90
PROBE_TOKENS = 20
PROBE_WORDS = 8


@dataclass
class Outcome:
    seed: int
    faults: Counter = field(default_factory=Counter)
    answers: Counter = field(default_factory=Counter)
    work: int = 0
    records: int = 0
    broken_off: int = 0
    spent: int = 0
    beyond: int = 0
    """Charged above what the agents' books are worth: attempts that broke off."""
    quiet_seconds: float = 0
    seconds: float = 0


class Round:
    def __init__(
        self,
        seed: int,
        pace: plan.Pace,
        folder: pathlib.Path,
        network: Namespaces | Loopback,
        say: Callable[[str], None],
    ) -> None:
        self._has_network = network.lacks is None
        self.pace = pace
        self._say = say
        self.faults = plan.schedule(seed, pace, has_network=self._has_network)
        self.mesh = Mesh(folder, network)
        self._injector = Injector(self.mesh, self.faults)
        self._load = Load(self.mesh, seed)
        self.outcome = Outcome(seed)

    async def run(self) -> Outcome:
        began = time.monotonic()
        await self.mesh.start()
        self._say(f"  up after {time.monotonic() - began:.0f} s; {len(self.faults)} faults follow")
        await self._under_fire()
        await self.mesh.until_ready(plan.NODES)
        books = await self._until_right("the books after the faults")
        self._figures(books)
        self._check_faults()
        refused = await self._drain()
        await self._until_right("the books after the last requests", refused)
        if self.pace.is_long:
            await self._until_idle()
        answers = self._load.notes.answers
        await asyncio.to_thread(tamper.check, self.mesh, answers)
        self.outcome.seconds = time.monotonic() - began
        return self.outcome

    async def _under_fire(self) -> None:
        load = asyncio.create_task(self._load.run())
        watch = asyncio.create_task(self._watch())
        faults = asyncio.create_task(self._injector.run())
        try:
            done, _ = await asyncio.wait((load, watch, faults), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            self._load.stop()
            await load
        finally:
            for task in (load, watch, faults):
                task.cancel()
            await asyncio.gather(load, watch, faults, return_exceptions=True)
        self.outcome.faults = Counter(self._injector.injected)
        self.outcome.answers = self._load.notes.counts()

    async def _watch(self) -> None:
        """No budget is ever exceeded, not for a moment, and nobody ends who was not killed."""
        while True:
            sums = await asyncio.to_thread(audit.sums, self.mesh)
            if problems := checks.spending(sums):
                raise Trouble("\n".join(problems))
            for program in (*self.mesh.programs.values(), *self.mesh.agents):
                program.check()
            await asyncio.sleep(WATCH_SECONDS)

    def _check_faults(self) -> None:
        known = plan.kinds(has_network=self._has_network, is_long=self.pace.is_long)
        if missing := plan.never(self._injector.injected, known):
            raise Trouble(f"faults that never happened: {', '.join(missing)}")
        served = sum(answer.status == 200 for answer in self._load.notes.answers)
        if served < SERVED_MIN:
            raise Trouble(f"only {served} requests were served: {self.outcome.answers}")

    async def _until_right(self, what: str, refused: dict[Budget, int] | None = None) -> Books:
        """Settlements and records travel apart, and what died says at its next start what it had
        not said; so the books are right once they were seen to be."""
        began = time.monotonic()
        while True:
            books = await asyncio.to_thread(audit.books, self.mesh)
            problems = checks.books(books, self._load.notes.answers)
            problems += checks.leaks(books, refused or {})
            if not problems:
                self.outcome.quiet_seconds = max(
                    self.outcome.quiet_seconds, time.monotonic() - began
                )
                return books
            if time.monotonic() - began > QUIET_SECONDS_MAX:
                raise Trouble(f"{what}:\n" + "\n".join(problems[:20]))
            await asyncio.sleep(0.5)

    def _figures(self, books: Books) -> None:
        outcome = self.outcome
        outcome.work, outcome.records = len(books.work), len(books.records)
        outcome.broken_off = sum(not record.is_exact for record in books.records)
        outcome.spent = sum(record.cost for record in books.records)
        outcome.beyond = outcome.spent - sum(work.cost for work in books.work)

    # --- Whoever has money left gets it

    async def _drain(self) -> dict[Budget, int]:
        """Users with plenty are served by each gateway. Budgets that are to be used up are asked
        until they refuse, which brings back what the other gateway has idle; told is the worst case
        of what was refused."""
        probes = []
        for user in documents.USERS:
            if not any(budget.is_used_up for budget in documents.payers(user)):
                probes += [await self._ask_until((200,), user, way) for way in plan.GATEWAYS]
        used_up = [budget for budget in documents.BUDGETS if budget.is_used_up]
        for budget in used_up:
            await self._use_up(budget)
        ids = {probe.id for probe in probes}
        return await asyncio.to_thread(self._worst_of, ids, used_up)

    def _worst_of(self, ids: set[str], used_up: list[Budget]) -> dict[Budget, int]:
        reserved = [record.reserved for record in audit.records(self.mesh) if record.request in ids]
        if not reserved:
            raise Trouble(f"none of the last requests has a record: {ids}")
        return {budget: max(reserved) for budget in used_up}

    async def _use_up(self, budget: Budget) -> None:
        """By large requests as long as they are served, then by small ones."""
        (name, *_) = checks.payers_users(budget)
        user = next(user for user in documents.USERS if user.name == name)
        deadline = time.monotonic() + DRAIN_SECONDS_MAX
        turn = 0
        for tokens in (documents.OUTPUT_TOKENS_MAX, PROBE_TOKENS):
            status = 200
            while status == 200:
                gateway = plan.GATEWAYS[turn % len(plan.GATEWAYS)]
                status = (await self._ask_until((200, 402), user, gateway, tokens)).status
                turn += 1
                if time.monotonic() > deadline:
                    raise Trouble(f"{budget} is not used up after {turn} requests")

    async def _ask_until(
        self, statuses: tuple[int, ...], user: User, gateway: str, tokens: int = PROBE_TOKENS
    ) -> Answer:
        deadline = time.monotonic() + DRAIN_SECONDS_MAX
        while True:
            number = f"{gateway[-1]}e{len(self._load.notes.answers):08}"
            request = Request(user, number, CHAT, PROBE_WORDS, tokens, 0)
            answer = await self._load.ask(gateway, request)
            if answer.status in statuses:
                return answer
            if time.monotonic() > deadline:
                raise Trouble(f"{user.name} has money and is not served: {answer}")
            await asyncio.sleep(0.1)

    async def _until_idle(self) -> None:
        deadline = time.monotonic() + IDLE_SECONDS_MAX
        while True:
            accounts = await asyncio.to_thread(audit.accounts, self.mesh)
            held = {key: account.held for key, account in accounts.items() if account.held}
            if not held:
                return
            if time.monotonic() > deadline:
                raise Trouble(f"held with nothing under way: {held}")
            await asyncio.sleep(1)
