"""The sidecar as it runs before an agent that it knows nothing about: standalone, with limits and
journal on, in front of a server of the test's."""

import contextlib
import hashlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def document(kind, name, spec):
    return {"apiVersion": "weir.mesh/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def policy(**timeouts):
    agent = {
        "protocol": "passthrough",
        "path": "/",
        "models": [{"id": "any"}],
        "timeouts": {"connect": "2s", "firstByte": "10s", "idle": "10s", "total": "60s", **timeouts},
        "rateLimit": {"requestsPerSecond": 1_000_000, "burst": 1_000_000, "scope": "instance"},
        "concurrency": {"requestsMax": 4096, "queueMax": 1024, "queueTimeout": "1s"},
        # What an agent answers to nonsense is its own affair here.
        "breaker": {"consecutiveFailures": 1_000, "open": "1s", "openMax": "1s"},
    }
    documents = [
        document("Agent", "any", agent),
        document(
            "PriceTable",
            "any",
            {
                "dated": "2026-11-01",
                "source": "none",
                "prices": [{"model": "any", "perRequest": "0.000001"}],
            },
        ),
        document(
            "Tier", "all", {"monthlyBudget": "9000000", "agents": ["any"], "maxLease": "1000000"}
        ),
    ]
    canonical = json.dumps(documents, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return {
        "apiVersion": "weir.mesh/v1",
        "kind": "Policy",
        "version": {
            "epoch": 1,
            "number": 1,
            "hash": hashlib.sha256(canonical.encode()).hexdigest(),
        },
        "documents": documents,
    }


def binary():
    """The release's where there is one: it is what runs; else the one that the tests built."""
    chosen = os.environ.get("WEIR_SIDECAR")
    candidates = [chosen] if chosen else [
        ROOT / ".build/release/weir-sidecar",
        ROOT / ".build/debug/weir-sidecar",
    ]
    for candidate in candidates:
        if candidate and pathlib.Path(candidate).is_file():
            return str(candidate)
    raise SystemExit("weir-sidecar is not built: scripts/build, or WEIR_SIDECAR=FILE")


def wait_for_port(port, process, seconds=20):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"{process.args[0]} ended with {process.returncode}")
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        time.sleep(0.02)
    raise SystemExit(f"{process.args[0]} does not listen on {port}")


class Weir:
    """A running sidecar; `with` ends it."""

    name = "weir"

    def __init__(self, folder, upstream_port, workers=1):
        self.port = free_port()
        self.admin_port = free_port()
        file = folder / "policy.json"
        file.write_text(json.dumps(policy()))
        self.log = folder / "weir.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [
                    binary(),
                    "--standalone",
                    *("--policy", str(file), "--agent", "any", "--allowance", "9000000"),
                    *("--listen", f"127.0.0.1:{self.port}"),
                    *("--admin", f"127.0.0.1:{self.admin_port}"),
                    *("--upstream", f"http://127.0.0.1:{upstream_port}"),
                    *("--data", str(folder / "data"), "--drain", "1"),
                    *("--workers", str(workers)),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        wait_for_port(self.port, self.process)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        stop(self.process)


def stop(process):
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)
