"""Weir as it is deployed: two gateways, an agent's sidecar, a control plane, and a Redis that has
each write on the disk before it says so."""

import base64
import hashlib
import hmac
import json
import os
import secrets
import subprocess
import time
import urllib.error
import urllib.request

from ..stage import Missing, Stage, release_binary
from ..weir import document
from . import workload
from .products import Product, Tier, start_redis

GATEWAYS = 2
READY_SECONDS = 30
# Asked on the way of a request; reports and records go when they go.
ADMITTING_MESSAGES = ("leases", "subject")
# As the ledger wants it (docs/redis.md).
REDIS = ("--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction")


class Mesh(Product):
    def __init__(self, stage: Stage, upstream: int, tiers: list[Tier]) -> None:
        super().__init__("Weir", stage)
        self.folder = stage.folder / "weir"
        self.folder.mkdir()
        self._key = secrets.token_hex(32)
        self._admin: list[int] = []
        secret = {name: self._secret(name) for name in ("admin", "join", "jwt")}
        (self.folder / "jwt").write_text(self._key)
        redis = start_redis(self, "weir-redis", *REDIS)
        api, mesh = self._control_plane(redis, secret)
        self._apply(api, tiers)
        environment = {"WEIR_JOIN_TOKEN_FILE": secret["join"], "JWT_SECRET_KEY_FILE": secret["jwt"]}
        common = ["--control-plane", f"http://127.0.0.1:{mesh}"]
        agent = ["--agent", "bench", "--upstream", f"http://127.0.0.1:{upstream}", *common]
        self._sidecar("agent's sidecar", "agent", agent, environment)
        for number in range(GATEWAYS):
            gateway = ["--role", "gateway", *common]
            port, admin = self._sidecar("gateways", f"gateway-{number}", gateway, environment)
            self.ports.append(port)
            self._admin.append(admin)

    def token(self, user: str, tier: Tier) -> str:
        now = int(time.time())
        claims = {"sub": user, "tier": tier.name, "iat": now, "exp": now + 3600}
        signed = f"{encoded({'alg': 'HS256', 'typ': 'JWT'})}.{encoded(claims)}"
        code = hmac.new(self._key.encode(), signed.encode(), hashlib.sha256).digest()
        return f"{signed}.{base64url(code)}"

    def exchanges(self) -> int | None:
        return sum(admitting_messages(metrics(port)) for port in self._admin)

    def _secret(self, name: str) -> str:
        file = self.folder / name
        file.touch(mode=0o600)
        file.write_text(secrets.token_hex(32))
        return str(file)

    def _control_plane(self, redis: int, secret: dict[str, str]) -> tuple[int, int]:
        api, mesh = self.stage.port(), self.stage.port()
        data = self.folder / "control-plane"
        data.mkdir()
        command = [str(release_binary("weir-control-plane"))]
        command += ["--api", f"127.0.0.1:{api}", "--mesh", f"127.0.0.1:{mesh}"]
        command += ["--redis", f"redis://127.0.0.1:{redis}", "--data", str(data)]
        environment = {
            "WEIR_ADMIN_TOKEN_FILE": secret["admin"],
            "WEIR_JOIN_TOKEN_FILE": secret["join"],
        }
        how = {"port": mesh, "environment": environment}
        self.start("control plane", "control-plane", command, self.stage.proxy_core, **how)
        self._until_ready("control-plane", api)
        return api, mesh

    def _apply(self, api: int, tiers: list[Tier]) -> None:
        file = self.folder / "policy.yaml"
        file.write_text("\n---\n".join(json.dumps(item) for item in policy(tiers)))
        done = subprocess.run(
            [str(release_binary("weir")), "apply", "-f", str(file)]
            + ["--server", f"http://127.0.0.1:{api}"],
            env={**os.environ, "WEIR_ADMIN_TOKEN_FILE": str(self.folder / "admin")},
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise Missing(f"the policy was refused:\n{done.stdout}{done.stderr}")

    def _sidecar(
        self, part: str, name: str, options: list[str], environment: dict[str, str]
    ) -> tuple[int, int]:
        port, admin = self.stage.port(), self.stage.port()
        data = self.folder / name
        data.mkdir()
        command = [str(release_binary("weir-sidecar")), *options, "--data", str(data)]
        command += ["--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}"]
        core = self.stage.proxy_core
        self.start(part, name, command, core, port=admin, environment=environment)
        self._until_ready(name, admin)
        return port, admin

    def _until_ready(self, name: str, port: int) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2).close()
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.05)
        raise Missing(f"{name} is not ready:\n{self.stage.log(name).read_text()[-2000:]}")


def policy(tiers: list[Tier]) -> list[dict]:
    agent = {
        "protocol": "openai",
        "path": workload.PATH,
        "models": [{"id": workload.MODEL}],
        "timeouts": {"connect": "1s", "firstByte": "30s", "idle": "30s", "total": "60s"},
        "breaker": {"consecutiveFailures": 5, "open": "5s", "openMax": "60s"},
        "outputTokensMax": max(size.output_tokens_max for size in workload.ORDER),
    }
    tokens = {
        "input": workload.dollars(workload.INPUT_NANO_USD * 1_000_000),
        "output": workload.dollars(workload.OUTPUT_NANO_USD * 1_000_000),
    }
    prices = [{"model": workload.MODEL, "tokens": tokens}]
    documents = [
        document("Agent", "bench", agent),
        document("PriceTable", "bench", {"dated": "2026-11-01", "source": "-", "prices": prices}),
    ]
    for tier in tiers:
        spec = {"monthlyBudget": workload.dollars(tier.budget), "agents": ["bench"]}
        documents.append(document("Tier", tier.name, spec))
    return documents


def metrics(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        return answer.read().decode()


def admitting_messages(exposition: str) -> int:
    total = 0
    for line in exposition.splitlines():
        if not line.startswith("weir_uplink_messages_total{"):
            continue
        if any(f'message="{message}"' in line for message in ADMITTING_MESSAGES):
            total += int(float(line.rsplit(" ", 1)[1]))
    return total


def encoded(value: dict) -> str:
    return base64url(json.dumps(value, separators=(",", ":")).encode())


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
