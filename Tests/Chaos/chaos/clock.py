"""The clocks of the mesh's processes: each has its own, stepped while it runs by a file that
stepped_clock.c reads. The clock of this machine is never touched."""

import datetime
import mmap
import pathlib
import struct
import subprocess
import time

SOURCE = pathlib.Path(__file__).resolve().parent.parent / "stepped_clock.c"
NANO = 1_000_000_000
_STEPS = struct.Struct("<qq")


def compiled(folder: pathlib.Path) -> pathlib.Path:
    library = folder / "stepped_clock.so"
    command = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run([*command, "-o", str(library), str(SOURCE), "-ldl", "-lpthread"], check=True)
    return library


def to_the_middle_of_the_month(now: float) -> int:
    """Seconds from `now` to noon of the 15th (UTC): there no step crosses midnight, and the books
    of one month are those of the run, whenever it runs."""
    today = datetime.datetime.fromtimestamp(now, datetime.UTC)
    noon = today.replace(day=15, hour=12, minute=0, second=0, microsecond=0)
    return round(noon.timestamp() - now)


class Clock:
    """Of one process, whichever of its lives: a machine's clock does not care who runs."""

    def __init__(self, library: pathlib.Path, file: pathlib.Path, ahead: int) -> None:
        self.file = file
        self._ahead = ahead
        self._realtime = ahead * NANO
        self._boottime = 0
        self.environment = {"LD_PRELOAD": str(library), "STEPPED_CLOCK": str(file)}
        file.write_bytes(bytes(_STEPS.size))
        with file.open("r+b") as opened:
            self._mapped = mmap.mmap(opened.fileno(), _STEPS.size)
        self._write()

    def set_wall_clock(self, seconds: float) -> None:
        """So many seconds ahead of the mesh's time; negative is behind."""
        self._realtime = round((self._ahead + seconds) * NANO)
        self._write()

    def sleep(self, seconds: float) -> None:
        """As if the machine had slept so long: both clocks go on, CLOCK_MONOTONIC does not."""
        self._realtime += round(seconds * NANO)
        self._boottime += round(seconds * NANO)
        self._write()

    def is_read_by(self, pid: int) -> bool:
        try:
            return str(self.file) in pathlib.Path(f"/proc/{pid}/maps").read_text()
        except OSError:
            return False

    def _write(self) -> None:
        _STEPS.pack_into(self._mapped, 0, self._realtime, self._boottime)


def mesh_time(ahead: int) -> int:
    return int(time.time()) + ahead
