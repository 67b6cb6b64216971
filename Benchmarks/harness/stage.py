"""Processes of a run: started on a core of their own, on ports of their own, in a folder of their
own, and ended by their id whatever happens, ^C included."""

import ctypes
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TOOLS = ROOT / "Benchmarks" / "tools"
_libc = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


class Missing(Exception):
    """A tool, a program or an option that is not there; says what to do about it."""


def cores() -> tuple[int, int]:
    """The core of the proxies, and that of load and upstream."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise Missing("two cores are needed: one for the proxy, one for load and upstream")
    return allowed[0], allowed[1]


def need(tool: str, package: str) -> str:
    found = shutil.which(tool) or shutil.which(tool, path="/usr/sbin:/usr/local/sbin:/sbin")
    if found is None:
        raise Missing(f"{tool} is missing (apt-get install {package})")
    return found


def release_binary(name: str) -> pathlib.Path:
    path = pathlib.Path(os.environ.get("WEIR_BIN", ROOT / ".build" / "release")) / name
    if not path.exists():
        raise Missing(f"{path} is missing (swift build -c release --product {name})")
    return path


class Stage:
    """Use as a context: what it started ends with it."""

    def __init__(self) -> None:
        # Workers whose master ends first become children of this process, which then ends them.
        _libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="weir-bench-"))
        self.proxy_core, self.load_core = cores()
        self._running: list[tuple[str, subprocess.Popen]] = []
        self._tools: dict[str, pathlib.Path] = {}
        # Below the ports that the kernel gives to connections.
        self._port = 20_000 + os.getpid() % 12_000

    def __enter__(self) -> "Stage":
        # The default action would leave without ending anything.
        signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(SystemExit(143)))
        return self

    def __exit__(self, *_: object) -> None:
        for _, process in reversed(self._running):
            end(process)
        shutil.rmtree(self.folder, ignore_errors=True)

    def port(self) -> int:
        """One that nobody listens on, and that this run has not given out before."""
        while True:
            self._port += 1
            with socket.socket() as probe:
                try:
                    probe.bind(("127.0.0.1", self._port))
                    return self._port
                except OSError:
                    continue

    def start(
        self,
        name: str,
        command: list[str],
        core: int,
        *,
        port: int | None = None,
        environment: dict[str, str] | None = None,
        seconds: float = 20,
    ) -> subprocess.Popen:
        """Starts a server pinned to a core and waits until its port answers. Its output goes to
        NAME.log in the folder of the run."""

        def pin() -> None:
            os.sched_setaffinity(0, {core})
            # Ends with this process, even where that is killed.
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

        log = self.log(name)
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                preexec_fn=pin,
                start_new_session=True,
            )
        self._running.append((name, process))
        if port is not None and not answers(port, process, seconds):
            raise Missing(f"{name} does not listen on {port}:\n{log.read_text()[-2000:]}")
        return process

    def stop(self, process: subprocess.Popen) -> None:
        end(process)
        self._running = [(n, p) for n, p in self._running if p is not process]

    def log(self, name: str) -> pathlib.Path:
        return self.folder / f"{name}.log"

    def tool(self, name: str, *flags: str) -> pathlib.Path:
        """A program of Benchmarks/tools, compiled for this run."""
        if name not in self._tools:
            output = self.folder / name
            subprocess.run(
                [need("cc", "gcc"), "-O2", "-Wall", "-Werror", "-o", str(output)]
                + [str(TOOLS / f"{name}.c"), *flags],
                check=True,
            )
            self._tools[name] = output
        return self._tools[name]


def end(process: subprocess.Popen) -> None:
    """A server and what it started."""
    members = family(process.pid)[1:]
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for member in members:
        reap(member)


def reap(pid: int) -> None:
    """Of a server that has ended; it may have waited for its children itself."""
    deadline = time.monotonic() + 5
    try:
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
    except (ChildProcessError, ProcessLookupError):
        return


def answers(port: int, process: subprocess.Popen, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        except OSError:
            time.sleep(0.02)
    return False


def family(pid: int) -> list[int]:
    """A process and all that come from it."""
    found = [pid]
    for parent in found:
        for task in pathlib.Path(f"/proc/{parent}/task").glob("*"):
            try:
                found += [int(child) for child in (task / "children").read_text().split()]
            except OSError:
                continue
    return found


def cpu_nanoseconds(pid: int) -> int:
    """Time on a core, of all threads of a process and its children. By schedstat, because ticks
    are sampled and wrong at low load."""
    total = 0
    for member in family(pid):
        for task in pathlib.Path(f"/proc/{member}/task").glob("*"):
            try:
                total += int((task / "schedstat").read_text().split()[0])
            except (OSError, IndexError):
                continue
    return total


@dataclass(frozen=True)
class Resident:
    """Memory in bytes: all that is resident, and the part that is no file's."""

    all: int
    anonymous: int


def resident(pid: int) -> Resident:
    """Of the largest process among a server and its children: the one that serves. What its master
    needs beside it is left out, in favour of those that have one."""
    found = [resident_alone(member) for member in family(pid)]
    if not any(found):
        raise Missing(f"process {pid} is gone")
    return max((one for one in found if one), key=lambda one: one.all)


def resident_alone(pid: int) -> Resident | None:
    try:
        lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    sizes = {line.partition(":")[0]: line.split()[1] for line in lines if line.startswith(("VmRSS:", "RssAnon:"))}
    if len(sizes) < 2:
        return None
    return Resident(int(sizes["VmRSS"]) * 1024, int(sizes["RssAnon"]) * 1024)
