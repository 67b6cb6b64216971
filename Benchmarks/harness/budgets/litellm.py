"""LiteLLM's proxy: two replicas of one worker each that share a Redis, as its documentation has
it."""

import pathlib
import shutil
import subprocess
import time
import urllib.error
import urllib.request

from ..stage import ROOT, Missing, Stage
from . import workload
from .products import Product, Tier, move, start_redis

REPLICAS = 2
READY_SECONDS = 120
ENVIRONMENT = ROOT / ".venv-litellm"
PEERS = ROOT / "Benchmarks" / "peers"
SETTINGS = {
    # There is nothing to fetch a newer one from.
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOG": "ERROR",
    "DO_NOT_TRACK": "1",
    "NO_DOCS": "True",
    "NO_REDOC": "True",
}


class LiteLLM(Product):
    def __init__(self, stage: Stage, upstream: int, *, strict: bool) -> None:
        super().__init__("LiteLLM" if strict else "LiteLLM, not strict", stage)
        program = ENVIRONMENT / "bin" / "litellm"
        if not program.exists():
            raise Missing(f"{program} is missing (scripts/benchmark installs it)")
        name = "litellm" if strict else "litellm-not-strict"
        self.folder = stage.folder / name
        self.folder.mkdir()
        redis = start_redis(self, f"{name}-redis", "--maxmemory-policy", "noeviction")
        config = self._config(upstream, redis, strict)
        cores = (stage.proxy_core, stage.load_core)
        # They take long to start, so each has a core until it is ready.
        for number in range(REPLICAS):
            port = stage.port()
            command = [str(program), "--config", str(config), "--host", "127.0.0.1"]
            command += ["--port", str(port), "--num_workers", "1"]
            core = cores[number % len(cores)]
            self.start("replicas", f"{name}-{number}", command, core, environment=SETTINGS)
            self.ports.append(port)
        for number, port in enumerate(self.ports):
            self._until_ready(f"{name}-{number}", port)
        for replica in self.parts["replicas"]:
            move(replica, stage.proxy_core)

    def token(self, user: str, tier: Tier) -> str:
        return f"sk-{tier.budget}-{user}"

    def _config(self, upstream: int, redis: int, strict: bool) -> pathlib.Path:
        text = (PEERS / "litellm.yaml").read_text()
        values = {
            "UPSTREAM": str(upstream),
            "REDIS": str(redis),
            "INPUT": f"{workload.INPUT_NANO_USD / 1e9:.12f}",
            "OUTPUT": f"{workload.OUTPUT_NANO_USD / 1e9:.12f}",
            "STRICT": str(strict).lower(),
        }
        for key, value in values.items():
            text = text.replace(f"@{key}@", value)
        file = self.folder / "litellm.yaml"
        file.write_text(text)
        shutil.copy(PEERS / "litellm_budgets.py", self.folder)
        return file

    def _until_ready(self, name: str, port: int) -> None:
        deadline = time.monotonic() + READY_SECONDS
        alive = f"http://127.0.0.1:{port}/health/liveliness"
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(alive, timeout=5).close()
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        raise Missing(f"{name} is not ready:\n{self.stage.log(name).read_text()[-2000:]}")


def version() -> str:
    python = ENVIRONMENT / "bin" / "python"
    code = "from importlib.metadata import version; print(version('litellm'))"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True)
    return done.stdout.strip() or "unknown"
