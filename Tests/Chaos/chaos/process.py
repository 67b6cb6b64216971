"""One program of the mesh, through its lives: started, killed, stopped and started again by its own
id. All of them end with this process, whichever way it ends."""

import ctypes
import os
import pathlib
import signal
import subprocess
import time

from .clock import Clock

_libc = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG = 1
END_SECONDS = 20


class Trouble(Exception):
    """The mesh does not do what a fault cannot excuse."""


class Program:
    def __init__(
        self,
        name: str,
        node: str,
        command: list[str],
        log: pathlib.Path,
        environment: dict[str, str] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.name = name
        self.node = node
        self.clock = clock
        self._command = command
        self._log = log
        self._environment = {**os.environ, **(environment or {})}
        if clock is not None:
            self._environment |= clock.environment
        self._process: subprocess.Popen | None = None
        self.should_run = False
        self.lives = 0

    def start(self) -> None:
        self.lives += 1
        with self._log.open("ab") as output:
            output.write(f"--- life {self.lives}\n".encode())
            output.flush()
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment,
                preexec_fn=lambda: _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
                start_new_session=True,
            )
        self.should_run = True

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    @property
    def status(self) -> int | None:
        """The exit code of one that has ended; negative is a signal."""
        return self._process.poll() if self._process else None

    def check(self) -> None:
        if self.should_run and self.status is not None:
            raise Trouble(f"{self.name} ended by itself with {self.status}:\n{self.last_words()}")

    def kill(self) -> bool:
        """kill -9; whether that is what ended it."""
        assert self._process is not None
        self.should_run = False
        self._process.kill()
        return self._process.wait(END_SECONDS) == -signal.SIGKILL

    def stop(self) -> bool:
        """SIGSTOP; whether all of it stands still."""
        os.kill(self.pid, signal.SIGSTOP)
        deadline = time.monotonic() + END_SECONDS
        while time.monotonic() < deadline:
            if self._state() == "T":
                return True
            time.sleep(0.002)
        return False

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def end(self) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        self.should_run = False
        self.go_on()
        self._process.terminate()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def last_words(self) -> str:
        return self._log.read_text(errors="replace")[-3000:]

    def _state(self) -> str:
        stat = pathlib.Path(f"/proc/{self.pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0]
