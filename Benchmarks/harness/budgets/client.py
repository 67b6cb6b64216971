"""Clients with kept connections: each asks one request after the other and notes what came back.
What a user has spent and has in flight is reckoned here as it happens, so that each refusal can be
judged."""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from .workload import PATH, Request

REQUEST_SECONDS_MAX = 60
# As OpenAI's own clients: twice, where the answer says when.
RETRIES_MAX = 2
RETRY_AFTER_SECONDS_MAX = 2.0
REFUSALS = (402, 429, 503)
# LiteLLM says 422 for a budget, and for much else.
BUDGET_MARKS = (b"budget_exceeded",)


class Strange(Exception):
    """An answer that this workload has no place for: neither served nor refused for money."""


@dataclass
class Answer:
    status: int
    fields: dict[bytes, bytes]
    body: bytes
    first_byte_seconds: float
    seconds: float


@dataclass(frozen=True)
class Served:
    seconds: float
    first_byte_seconds: float
    stream: bool


@dataclass
class Account:
    """One user's money, in billionths of a dollar. Of each request that is open, the most that was
    spent and at risk at once while it was, its own worst case included: its peak."""

    budget: int
    spent: int = 0
    at_risk: int = 0
    open: dict[int, int] = field(default_factory=dict)
    refused_in_row: int = 0

    def begin(self, number: int, worst: int) -> None:
        self.at_risk += worst
        self.open[number] = 0
        for key, peak in self.open.items():
            self.open[key] = max(peak, self.spent + self.at_risk)

    def end(self, number: int, worst: int, actual: int) -> int:
        """The peak of this request."""
        self.at_risk -= worst
        self.spent += actual
        return self.open.pop(number)


@dataclass
class Notes:
    served: list[Served] = field(default_factory=list)
    refused: dict[int, int] = field(default_factory=dict)
    asked_again: int = 0
    """Refusals after which the client waited as told, and asked again."""
    fitted: int = 0
    """Refused for good, although the request fitted into the budget beside everything in flight at
    its worst, from the question to the answer."""
    unspent: int = 0
    """Refused for good, although what was really spent and its worst case were below the budget."""
    started: float = 0
    ended: float = 0

    @property
    def refusals(self) -> int:
        return sum(self.refused.values())

    @property
    def requests(self) -> int:
        return len(self.served) + self.refusals


class Connection:
    def __init__(self, port: int) -> None:
        self.port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, head: bytes, body: bytes) -> Answer:
        try:
            async with asyncio.timeout(REQUEST_SECONDS_MAX):
                return await self._ask(head, body)
        except (ConnectionError, asyncio.IncompleteReadError, TimeoutError) as problem:
            self.close()
            raise Strange(f"no answer on {self.port}: {problem!r}") from problem

    async def _ask(self, head: bytes, body: bytes) -> Answer:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self._streams
        started = time.perf_counter()
        writer.write(head + body)
        status, fields = read_head(await reader.readuntil(b"\r\n\r\n"))
        first: list[float] = []

        def arrived() -> None:
            if not first:
                first.append(time.perf_counter() - started)

        content = await read_body(reader, fields, arrived)
        seconds = time.perf_counter() - started
        if fields.get(b"connection", b"").lower() == b"close":
            self.close()
        return Answer(status, fields, content, first[0] if first else seconds, seconds)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def read_head(head: bytes) -> tuple[int, dict[bytes, bytes]]:
    lines = head.split(b"\r\n")
    fields = {}
    for line in lines[1:]:
        name, _, value = line.partition(b":")
        fields[name.strip().lower()] = value.strip()
    return int(lines[0].split(b" ")[1]), fields


async def read_body(
    reader: asyncio.StreamReader, fields: dict[bytes, bytes], arrived: Callable[[], None]
) -> bytes:
    if fields.get(b"transfer-encoding", b"").lower() != b"chunked":
        content = await reader.readexactly(int(fields.get(b"content-length", b"0")))
        arrived()
        return content
    parts = []
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        parts.append((await reader.readexactly(size + 2))[:-2])
        arrived()
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass
    return b"".join(parts)


class Client:
    """`token` is what the product knows the user by."""

    def __init__(self, port: int, token: str, account: Account, notes: Notes) -> None:
        self._connection = Connection(port)
        self._account = account
        self._notes = notes
        self._start = start(token)

    def speak_for(self, token: str, account: Account) -> None:
        """From now on, over the same connection."""
        self._account = account
        self._start = start(token)

    def close(self) -> None:
        self._connection.close()

    async def work(self, requests: Iterator[Request], deadline: float) -> None:
        try:
            for request in requests:
                if time.monotonic() > deadline:
                    raise Strange("the workload is not done in its time")
                await self.one(request)
        finally:
            self.close()

    async def one(self, request: Request) -> None:
        body, worst = request.body(), request.worst
        head = f"{self._start}Content-Length: {len(body)}\r\n\r\n".encode()
        for attempt in range(RETRIES_MAX + 1):
            self._account.begin(request.number, worst)
            answer = await self._connection.ask(head, body)
            is_served = answer.status == 200
            actual = request.size.actual if is_served else 0
            peak = self._account.end(request.number, worst, actual)
            if is_served:
                check(request, answer)
                times = (answer.seconds, answer.first_byte_seconds)
                self._notes.served.append(Served(*times, request.stream))
                self._account.refused_in_row = 0
                return
            if not is_refusal(answer):
                raise Strange(f"{answer.status}: {answer.body[:500]!r}")
            wait = retry_after(answer)
            if wait is None or attempt == RETRIES_MAX:
                self._refused(worst, answer.status, peak)
                await asyncio.sleep(request.pause_seconds)
                return
            self._notes.asked_again += 1
            await asyncio.sleep(wait)

    def _refused(self, worst: int, status: int, peak: int) -> None:
        notes, account = self._notes, self._account
        account.refused_in_row += 1
        notes.refused[status] = notes.refused.get(status, 0) + 1
        notes.fitted += peak <= account.budget
        notes.unspent += account.spent + worst <= account.budget


def start(token: str) -> str:
    return (
        f"POST {PATH} HTTP/1.1\r\nHost: gateway.local\r\nAuthorization: Bearer {token}\r\n"
        "Content-Type: application/json\r\nAccept: application/json\r\n"
    )


def check(request: Request, answer: Answer) -> None:
    """That it is an answer, and whole: a product that is quick because it says nothing is none."""
    mark = b"[DONE]" if request.stream else b'"usage"'
    if mark not in answer.body:
        raise Strange(f"200 without {mark.decode()}: {answer.body[-500:]!r}")


def is_refusal(answer: Answer) -> bool:
    """For lack of money or of time, as opposed to a fault."""
    return answer.status in REFUSALS or any(mark in answer.body for mark in BUDGET_MARKS)


def retry_after(answer: Answer) -> float | None:
    """Seconds, where the answer names them and does not forbid to try again."""
    value = answer.fields.get(b"retry-after")
    if value is None or answer.fields.get(b"x-should-retry") == b"false":
        return None
    return min(float(value), RETRY_AFTER_SECONDS_MAX)
