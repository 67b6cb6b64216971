"""The clients: each user asks both gateways at once, for whole completions, streams and analyses,
and notes what came back. What a fault does to a request is no concern of theirs, but an answer that
no fault explains is."""

import asyncio
import json
import random
from collections import Counter
from dataclasses import dataclass, field

from harness.budgets.client import read_body, read_head

from . import documents, plan
from .documents import User
from .mesh import LISTEN, Mesh
from .process import Trouble

CHAT, STREAM, LEFT, ANALYSIS = "chat", "stream", "left", "analysis"
# One in ten streams is left by its client in the middle.
DRAW = (CHAT,) * 10 + (STREAM,) * 6 + (LEFT,) + (ANALYSIS,) * 3
REQUEST_SECONDS_MAX = 15
WORDS = ("market", "report", "profit", "warning", "surge", "plan", "growth", "risk")
# What a mesh may say that lacks money, time, or some of its parts.
EXPLAINED = (402, 429, 502, 503, 504)
NO_ANSWER = 0


@dataclass(frozen=True)
class Request:
    user: User
    number: str
    kind: str
    words: int
    output_tokens_max: int
    delay_ms: int

    def prompt(self) -> str:
        start = [self.user.name, self.number, str(self.delay_ms)]
        return " ".join(start + [WORDS[at % len(WORDS)] for at in range(self.words)])

    def body(self) -> tuple[str, bytes]:
        if self.kind == ANALYSIS:
            fields: dict = {"analysis_type": documents.ANALYSIS, "data": {"text": self.prompt()}}
            return "/analyze", json.dumps(fields).encode()
        model = documents.MODELS[documents.AGENTS[len(self.number) % 2]]
        fields = {
            "model": model,
            "max_tokens": self.output_tokens_max,
            "messages": [{"role": "user", "content": self.prompt()}],
        }
        if self.kind != CHAT:
            fields["stream"] = True
        return "/v1/chat/completions", json.dumps(fields).encode()


@dataclass(frozen=True)
class Answer:
    request: Request
    status: int
    """0: none came, or none that was whole."""
    reason: str = ""
    id: str = ""
    cost: int | None = None
    """What the answer says that it cost, where it says so in its head."""


@dataclass
class Notes:
    answers: list[Answer] = field(default_factory=list)

    def counts(self) -> Counter:
        return Counter(
            answer.request.kind if answer.status == 200 else answer.reason
            for answer in self.answers
        )


class Load:
    """Until `stop`."""

    def __init__(self, mesh: Mesh, seed: int) -> None:
        self.notes = Notes()
        self._mesh = mesh
        self._tokens = {user: mesh.token(user) for user in documents.USERS}
        self._goes_on = True
        self._draw = random.Random(seed)

    async def run(self) -> None:
        clients = [
            self._client(user, gateway, random.Random(self._draw.random()))
            for user in documents.USERS
            for gateway in plan.GATEWAYS
        ]
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(client)

    def stop(self) -> None:
        self._goes_on = False

    async def _client(self, user: User, gateway: str, draw: random.Random) -> None:
        count = 0
        await asyncio.sleep(draw.uniform(0, 0.5))
        while self._goes_on:
            count += 1
            request = Request(
                user,
                number=f"{gateway[-1]}{draw.getrandbits(24):x}.{count}",
                kind=draw.choice(DRAW),
                words=draw.randint(0, 40),
                output_tokens_max=draw.randint(20, documents.OUTPUT_TOKENS_MAX),
                delay_ms=draw.choice((0, 10, 50, 250)),
            )
            answer = await self.ask(gateway, request)
            await asyncio.sleep(draw.uniform(0.05, 0.5) if answer.status == 200 else 0.4)

    async def ask(self, gateway: str, request: Request) -> Answer:
        try:
            async with asyncio.timeout(REQUEST_SECONDS_MAX):
                answer = await self._ask(gateway, request)
        except (ConnectionError, asyncio.IncompleteReadError, TimeoutError, OSError):
            answer = Answer(request, NO_ANSWER, "no answer")
        self.notes.answers.append(answer)
        return answer

    async def _ask(self, gateway: str, request: Request) -> Answer:
        path, body = request.body()
        host = self._mesh.network.address(gateway)
        reader, writer = await asyncio.open_connection(host, LISTEN)
        try:
            head = (
                f"POST {path} HTTP/1.1\r\nHost: gateway\r\nContent-Length: {len(body)}\r\n"
                f"Authorization: Bearer {self._tokens[request.user]}\r\n"
                "Content-Type: application/json\r\nConnection: close\r\n\r\n"
            )
            writer.write(head.encode() + body)
            status, fields = read_head(await reader.readuntil(b"\r\n\r\n"))
            if request.kind == LEFT and status == 200:
                await reader.readuntil(b"\r\n")
                return Answer(request, NO_ANSWER, "left")
            content = await read_body(reader, fields, lambda: None)
            return judged(request, status, fields, content)
        finally:
            writer.close()


def judged(request: Request, status: int, fields: dict[bytes, bytes], content: bytes) -> Answer:
    if status != 200:
        if status not in EXPLAINED:
            raise Trouble(f"{request}: {status} {content[:500]!r}")
        return Answer(request, status, reason_of(content) or str(status))
    if request.kind == STREAM and b"[DONE]" not in content:
        # It broke off in the middle, and said so.
        return Answer(request, NO_ANSWER, "broken stream")
    says = fields.get(b"weir-cost-usd")
    return Answer(
        request,
        status,
        id=fields.get(b"weir-request-id", b"").decode(),
        cost=documents.nano(says.decode()) if says else None,
    )


def reason_of(content: bytes) -> str:
    """A problem document's, or that of an error as OpenAI's clients want it."""
    try:
        problem = json.loads(content)
    except ValueError:
        return ""
    return problem.get("reason") or (problem.get("error") or {}).get("code") or ""
