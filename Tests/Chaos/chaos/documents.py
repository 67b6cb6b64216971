"""The policy of the run, its users and their budgets. Some budgets are used up within the first
half minute, others never; all money is in billionths of a dollar."""

from dataclasses import dataclass

AGENTS = ("alpha", "beta")
MODELS = {"alpha": "model-alpha", "beta": "model-beta"}
ANALYSIS = "two_opinions"
INPUT_PRICE = 200
OUTPUT_PRICE = 5_000
OUTPUT_TOKENS_MAX = 160
USD = 1_000_000_000


@dataclass(frozen=True)
class Budget:
    """An account with a limit, and whose spending it pays."""

    scope: str
    id: str
    limit: int
    is_used_up: bool
    """Meant to be, by the load of every run."""

    def __str__(self) -> str:
        return f"{self.scope} {self.id}"


@dataclass(frozen=True)
class User:
    name: str
    tier: str
    tenant: str | None = None


TIERS = {"small": USD // 100, "large": 5 * USD, "pool": USD}
USERS = (
    *(User(f"small-{number}", "small") for number in range(1, 5)),
    *(User(f"large-{number}", "large") for number in range(1, 4)),
    *(User(f"pool-{number}", "pool") for number in range(1, 4)),
    *(User(f"acme-{number}", "large", "acme") for number in range(1, 4)),
    *(User(f"rich-{number}", "large", "rich") for number in range(1, 3)),
)
SHARED = (
    Budget("tenant", "acme", USD // 20, True),
    Budget("tenant", "rich", 20 * USD, False),
    Budget("tier", "pool", USD // 20, True),
)
BUDGETS = (
    *(Budget("user", user.name, TIERS[user.tier], user.tier == "small") for user in USERS),
    *SHARED,
)


def payers(user: User) -> list[Budget]:
    """Whose money a user spends: the own, and the tenant's and the tier's where they have some."""
    names = {("user", user.name), ("tenant", user.tenant), ("tier", user.tier)}
    return [budget for budget in BUDGETS if (budget.scope, budget.id) in names]


def policy() -> list[dict]:
    prices = [{"model": model, "tokens": _tokens()} for model in MODELS.values()]
    documents = [_document("Agent", name, _agent(name)) for name in AGENTS]
    documents += [
        _document("PriceTable", "chaos", {"dated": "2026-11-01", "source": "-", "prices": prices}),
        _document("RequestType", ANALYSIS, _analysis()),
    ]
    for name, limit in TIERS.items():
        spec = {"monthlyBudget": dollars(limit), "agents": list(AGENTS)}
        documents.append(_document("Tier", name, spec))
    for budget in SHARED:
        spec = {"scope": budget.scope, "id": budget.id, "monthlyLimit": dollars(budget.limit)}
        documents.append(_document("Budget", f"{budget.scope}-{budget.id}", spec))
    return documents


def _tokens() -> dict[str, str]:
    return {
        "input": dollars(INPUT_PRICE * 1_000_000),
        "output": dollars(OUTPUT_PRICE * 1_000_000),
    }


def _agent(name: str) -> dict:
    spec: dict = {
        "protocol": "openai",
        "path": "/v1/chat/completions",
        "models": [{"id": MODELS[name]}],
        "timeouts": {"connect": "500ms", "firstByte": "4s", "idle": "4s", "total": "8s"},
        "breaker": {"consecutiveFailures": 5, "open": "500ms", "openMax": "2s"},
        "concurrency": {"requestsMax": 64, "queueMax": 64, "queueTimeout": "1s"},
        "outputTokensMax": OUTPUT_TOKENS_MAX,
    }
    if name == "alpha":
        # Another agent, after the first one may have worked: two attempts, both owed.
        spec["fallbacks"] = ["beta"]
    else:
        # The same request, sent twice: two attempts, both owed.
        spec["retry"] = {"afterSend": True, "attemptsMax": 2}
        spec["whenCallerLeaves"] = "cancel"
    return spec


def _analysis() -> dict:
    """Two agents, one after the other."""

    def step(name: str, agent: str, **more: object) -> dict:
        agents = {tier: [agent] for tier in TIERS}
        prompt = {"user": "{{text}}"}
        return {"name": name, "agents": agents, "prompt": prompt, "timeout": "8s", **more}

    text = {"text": "/data/text"}
    schema = {
        "type": "object",
        "required": ["text"],
        "properties": {"text": {"type": "string", "minLength": 1}},
    }
    steps = [
        step("first", "alpha", input=text),
        step("second", "beta", input=text, after=["first"], required=False),
    ]
    return {"timeout": "12s", "inputSchema": schema, "steps": steps}


def _document(kind: str, name: str, spec: dict) -> dict:
    return {"apiVersion": "weir.mesh/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def cost(input_tokens: int, output_tokens: int) -> int:
    return input_tokens * INPUT_PRICE + output_tokens * OUTPUT_PRICE


def dollars(nano: int) -> str:
    return f"{nano // USD}.{nano % USD:09d}"


def nano(usd: str) -> int:
    sign = -1 if usd.startswith("-") else 1
    whole, _, part = usd.lstrip("-").partition(".")
    return sign * (int(whole) * USD + int(part.ljust(9, "0")))
