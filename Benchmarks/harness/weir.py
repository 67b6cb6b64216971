"""Weir as it runs before an agent: the release binary, standalone, with everything enforced."""

import hashlib
import json
import pathlib
import subprocess

from .messages import CHAT_PATH, MODEL
from .peers import certificates
from .stage import Stage, release_binary

API_VERSION = "weir.mesh/v1"


def policy(*, metered: bool) -> dict:
    """Rate limit, concurrency, breaker and a price for each request. Metered: tokens are read from
    the answers and priced, and both bodies are hashed."""
    agent = {
        "protocol": "openai" if metered else "passthrough",
        "path": CHAT_PATH,
        "models": [{"id": MODEL}],
        "timeouts": {"connect": "1s", "firstByte": "30s", "idle": "30s", "total": "1h"},
        "rateLimit": {"requestsPerSecond": 1_000_000, "burst": 1_000_000, "scope": "instance"},
        "concurrency": {"requestsMax": 4096, "queueMax": 1024, "queueTimeout": "1s"},
        "breaker": {"consecutiveFailures": 5, "open": "5s", "openMax": "60s"},
        "requestBodyBytesMax": 16 << 20,
        "bodyDigests": metered,
    }
    price = {"tokens": {"input": "0.05", "output": "0.25"}} if metered else {"perRequest": "0.000001"}
    documents = [
        document("Agent", "bench", agent),
        document("PriceTable", "bench", {"dated": "2026-11-01", "source": "none", "prices": [{"model": MODEL, **price}]}),
        document(
            "Tier", "all", {"monthlyBudget": "9000000", "agents": ["bench"], "maxLease": "1000000"}
        ),
    ]
    canonical = json.dumps(documents, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return {
        "apiVersion": API_VERSION,
        "kind": "Policy",
        "version": {
            "epoch": 1,
            "number": 1,
            "hash": hashlib.sha256(canonical.encode()).hexdigest(),
        },
        "documents": documents,
    }


def document(kind: str, name: str, spec: dict) -> dict:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}


def command(
    stage: Stage,
    name: str,
    listen: int,
    upstream: int,
    *,
    metered: bool,
    binary: pathlib.Path | None = None,
    options: list[str] | None = None,
    scheme: str = "http",
) -> list[str]:
    file = stage.folder / f"{name}.policy.json"
    file.write_text(json.dumps(policy(metered=metered)))
    return [
        str(binary or release_binary("weir-sidecar")),
        "--standalone",
        *("--policy", str(file), "--agent", "bench", "--allowance", "9000000"),
        *("--listen", f"127.0.0.1:{listen}", "--admin", f"127.0.0.1:{stage.port()}"),
        *("--upstream", f"{scheme}://127.0.0.1:{upstream}"),
        *("--data", str(stage.folder / f"{name}.data"), "--workers", "1"),
        *(options or []),
    ]


def stripped(stage: Stage) -> pathlib.Path:
    """Without debug information, of which valgrind cannot read as much as Swift writes; with the
    names of functions."""
    output = stage.folder / "weir-sidecar"
    if not output.exists():
        subprocess.run(
            ["strip", "-g", "-o", str(output), str(release_binary("weir-sidecar"))], check=True
        )
    return output


# The option of weir-sidecar without which a form of traffic cannot be served. Other forms need
# none: that a build cannot serve them shows when it is started or asked.
OPTIONS_OF_FORM = {"tls": "--tls-certificate", "mtls": "--tls-client-ca"}


def scheme(form: str) -> str:
    """Of the upstream's URL."""
    return "h2c" if form == "grpc" else "http"


def form_options(stage: Stage, form: str) -> list[str]:
    """What a form of traffic adds to the command line."""
    if form not in ("tls", "mtls"):
        return []
    made = certificates(stage)
    options = ["--tls-certificate", str(made.server), "--tls-key", str(made.server_key)]
    return options + (["--tls-client-ca", str(made.authority)] if form == "mtls" else [])
