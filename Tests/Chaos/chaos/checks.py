"""What must be true of the books, whatever happened: pure, so that each check can be shown books
that are wrong. All amounts are in billionths of a dollar.

An attempt that was seen to its end has a record with what the agent's books say, to the token. One
that broke off has a record that is marked, and at least as dear. So the records are never below
what the agents' books are worth, and what is above is what broke off."""

from collections import Counter, defaultdict
from dataclasses import dataclass

from . import documents
from .documents import BUDGETS, Budget
from .load import Answer

FLAG_OVERRUN, FLAG_CRASHED = 1, 2
REPORTED = "reported"


@dataclass(frozen=True)
class Work:
    """What an agent says that it did."""

    agent: str
    user: str
    number: str
    input_tokens: int
    output_tokens: int

    @property
    def cost(self) -> int:
        return documents.cost(self.input_tokens, self.output_tokens)


@dataclass(frozen=True)
class Record:
    """What the archive says of an attempt."""

    agent: str
    user: str
    request: str
    cost: int
    reserved: int
    input_tokens: int
    output_tokens: int
    source: str
    flags: int

    @property
    def is_exact(self) -> bool:
        return self.source == REPORTED and not self.flags & FLAG_CRASHED


@dataclass(frozen=True)
class Account:
    """As `weir cost reconcile` shows it."""

    state: str
    consumed: int
    recorded: int
    held: int
    why: str = ""


@dataclass(frozen=True)
class Books:
    work: list[Work]
    records: list[Record]
    accounts: dict[tuple[str, str], Account]


def spending(books_of_agents: dict[str, int]) -> list[str]:
    """While the mesh runs: what the agents have worked for, by user, against every budget."""
    problems = []
    for budget in BUDGETS:
        spent = sum(books_of_agents.get(name, 0) for name in payers_users(budget))
        if spent > budget.limit:
            problems.append(f"{budget}: agents worked for {spent}, its limit is {budget.limit}")
    return problems


def payers_users(budget: Budget) -> list[str]:
    """Whose requests a budget pays."""
    return [user.name for user in documents.USERS if budget in documents.payers(user)]


def books(books: Books, answers: list[Answer]) -> list[str]:
    """At the end, when all is said."""
    return [
        *reconciled(books),
        *budgets_kept(books),
        *work_recorded(books),
        *answers_recorded(books, answers),
    ]


def reconciled(books: Books) -> list[str]:
    problems = []
    for key, account in books.accounts.items():
        if account.state != "agrees" or account.consumed != account.recorded:
            problems.append(f"{' '.join(key)} does not agree with its records: {account}")
    for budget in BUDGETS:
        spent = sum_of(books, budget)
        account = books.accounts.get((budget.scope, budget.id))
        if account is None and spent:
            problems.append(f"{budget} has records of {spent} and no account")
        elif account is not None and account.consumed != spent:
            problems.append(f"{budget} consumed {account.consumed}, its records say {spent}")
    return problems


def sum_of(books: Books, budget: Budget) -> int:
    names = set(payers_users(budget))
    return sum(record.cost for record in books.records if record.user in names)


def budgets_kept(books: Books) -> list[str]:
    problems = []
    for budget in BUDGETS:
        account = books.accounts.get((budget.scope, budget.id))
        if account is not None and account.consumed + account.held > budget.limit:
            problems.append(f"{budget}: {account} is above its limit {budget.limit}")
    problems += [f"an overrun: {record}" for record in books.records if record.flags & FLAG_OVERRUN]
    return problems


def work_recorded(books: Books) -> list[str]:
    """Each piece of work by the record that is its own, or by one of those that broke off."""
    exact: Counter = Counter()
    marked: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for record in books.records:
        if record.is_exact:
            exact[_key(record)] += 1
        else:
            marked[record.agent, record.user].append(record.cost)
    loose: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for work in books.work:
        if exact[_key(work)]:
            exact[_key(work)] -= 1
        else:
            loose[work.agent, work.user].append(work.cost)
    problems = [
        f"{count} records of work that no agent did: {key}" for key, count in exact.items() if count
    ]
    for key, costs in loose.items():
        covers = sorted(marked[key], reverse=True)
        costs.sort(reverse=True)
        if len(covers) < len(costs) or any(a < b for a, b in zip(covers, costs)):
            problems.append(
                f"{key[1]} at {key[0]}: work of {costs} has no record; broken off: {covers}"
            )
    return problems


def _key(what: Work | Record) -> tuple[str, str, int, int, int]:
    return (what.agent, what.user, what.input_tokens, what.output_tokens, what.cost)


def answers_recorded(books: Books, answers: list[Answer]) -> list[str]:
    """Nobody was served without a record, or charged more than the answer said. An answer may say
    more: a call that broke off counts there at its worst case, and may turn out never to have
    arrived."""
    recorded: defaultdict[str, list[Record]] = defaultdict(list)
    for record in books.records:
        recorded[record.request].append(record)
    problems = []
    for answer in answers:
        if answer.status != 200:
            continue
        records = recorded[answer.id]
        charged = sum(record.cost for record in records)
        if not records:
            problems.append(f"served without a record: {answer}")
        elif answer.cost is not None and charged > answer.cost:
            problems.append(f"said to cost {answer.cost}, charged {charged}: {answer}")
    return problems


def leaks(books: Books, refused: dict[Budget, int]) -> list[str]:
    """Of budgets whose users were refused at the end, although nobody else asked: what was left
    must have been below the worst case of what they asked for. Else somebody keeps money."""
    problems = []
    for budget, worst in refused.items():
        left = budget.limit - books.accounts[budget.scope, budget.id].consumed
        if left >= worst:
            problems.append(f"{budget}: refused {worst}, with {left} left of {budget.limit}")
    return problems
