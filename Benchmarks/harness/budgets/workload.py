"""The requests, the same for every product: what is asked, what it may cost at worst, and what it
will cost. Everything follows from the user and the request's number."""

import json
from dataclasses import dataclass

MODEL = "bench-model"
PATH = "/v1/chat/completions"
# Billionths of a dollar for one token: $0.10 and $30 for a million.
INPUT_NANO_USD = 100
OUTPUT_NANO_USD = 30_000
# An answer takes a tenth of what the request allows.
WORST_TO_ACTUAL = 10
WORDS = "the and for you with that this from have what will your when more been some"


@dataclass(frozen=True)
class Size:
    name: str
    words: int
    output_tokens_max: int

    @property
    def actual(self) -> int:
        return cost(self.words, used_output(self.output_tokens_max))


SMALL = Size("small", 40, 100)
MEDIUM = Size("medium", 200, 300)
LARGE = Size("large", 800, 600)
# Half are small, three of ten medium and two large, in an order that no period of four or fifty
# follows.
ORDER = (SMALL, MEDIUM, SMALL, LARGE, SMALL, MEDIUM, SMALL, SMALL, LARGE, MEDIUM)
STREAM_EVERY = 3


@dataclass(frozen=True)
class Request:
    user: str
    number: int
    size: Size
    stream: bool
    delay_ms: int
    """How long the upstream takes."""
    pause_seconds: float = 0
    """How long the client waits after a refusal."""

    @property
    def worst(self) -> int:
        """The input counted by bytes, as who has no tokenizer must, and all of the output."""
        return cost(len(self.body()), self.size.output_tokens_max)

    def body(self) -> bytes:
        fields: dict[str, object] = {
            "model": MODEL,
            "max_tokens": self.size.output_tokens_max,
            "messages": [{"role": "user", "content": self.prompt()}],
        }
        if self.stream:
            fields |= {"stream": True, "stream_options": {"include_usage": True}}
        return json.dumps(fields, separators=(",", ":")).encode()

    def prompt(self) -> str:
        """Begins with what the upstream must know, because products pass on other fields or not."""
        words = [f"user={self.user}", f"number={self.number}", f"delay={self.delay_ms}"]
        common = WORDS.split()
        rest = self.size.words - len(words)
        return " ".join(words + [common[(self.number + at) % len(common)] for at in range(rest)])


def request(user: str, number: int, delay_ms: int) -> Request:
    size = ORDER[number % len(ORDER)]
    return Request(user, number, size, number % STREAM_EVERY == 1, delay_ms)


def cost(input_tokens: int, output_tokens: int) -> int:
    """In billionths of a dollar, as all money here."""
    return input_tokens * INPUT_NANO_USD + output_tokens * OUTPUT_NANO_USD


def used_output(output_tokens_max: int) -> int:
    return max(1, output_tokens_max // WORST_TO_ACTUAL)


def mean_actual() -> float:
    return sum(size.actual for size in ORDER) / len(ORDER)


def dollars(nano: float) -> str:
    return f"{nano / 1e9:.6f}".rstrip("0").rstrip(".")
