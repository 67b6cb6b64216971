"""What both products have in common: processes by part, ports to talk to, and users' tokens."""

import os
import pathlib
import subprocess
from dataclasses import dataclass, field

from ..stage import Stage, cpu_nanoseconds, family, need

STORE = "Redis"
LAST_WORDS_MAX = 1_000


@dataclass(frozen=True)
class Tier:
    """A budget that many users have, each for himself, in billionths of a dollar."""

    name: str
    budget: int


@dataclass
class Product:
    name: str
    stage: Stage
    ports: list[int] = field(default_factory=list)
    """Where clients ask, of two equal parts."""
    parts: dict[str, list[subprocess.Popen]] = field(default_factory=dict)
    _names: dict[int, str] = field(default_factory=dict)

    def token(self, user: str, tier: Tier) -> str:
        raise NotImplementedError

    def exchanges(self) -> int | None:
        """Messages that its gateways have sent to a store or a control plane, and waited for, to
        admit requests: None if it does not say."""
        return None

    def cpu(self) -> dict[str, int]:
        """Nanoseconds on a core since the start, by part, children included."""
        return {
            part: sum(cpu_nanoseconds(process.pid) for process in processes)
            for part, processes in self.parts.items()
        }

    def start(self, part: str, name: str, command: list[str], core: int, **how) -> subprocess.Popen:
        process = self.stage.start(name, command, core, **how)
        self.parts.setdefault(part, []).append(process)
        self._names[process.pid] = name
        return process

    def gone(self) -> str:
        """Which parts have ended, and should not have, with their last words."""
        ended = [one for all in self.parts.values() for one in all if one.poll() is not None]
        told = []
        for process in ended:
            name = self._names[process.pid]
            words = self.stage.log(name).read_text(errors="replace")[-LAST_WORDS_MAX:]
            told.append(f" {name} ended with {process.returncode}: {words}")
        return "".join(told)


def start_redis(product: Product, name: str, *settings: str) -> int:
    """Its port."""
    stage = product.stage
    port = stage.port()
    folder = stage.folder / name
    folder.mkdir()
    command = [need("redis-server", "redis-server"), "--port", str(port), "--bind", "127.0.0.1"]
    command += ["--dir", str(folder), "--save", "", *settings]
    product.start(STORE, name, command, stage.proxy_core, port=port)
    return port


def move(process: subprocess.Popen, core: int) -> None:
    """All threads of a process that started elsewhere, and of its children."""
    for member in family(process.pid):
        for task in pathlib.Path(f"/proc/{member}/task").glob("*"):
            try:
                os.sched_setaffinity(int(task.name), {core})
            except ProcessLookupError:
                continue
