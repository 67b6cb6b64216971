"""Load generators and what they print. A turn with a single error is no measurement."""

import re
import subprocess
from dataclasses import dataclass

from . import messages
from .peers import certificates
from .stage import Stage, need


class LoadFailed(Exception):
    """The load met errors; says which."""


@dataclass(frozen=True)
class Load:
    requests: int
    seconds: float
    latency_us: dict[str, float] | None = None


UNITS = {"us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000}


def run(stage: Stage, command: list[str], seconds: float, environment: dict | None = None) -> str:
    """On the core of the load; bounded."""
    pinned = ["taskset", "-c", str(stage.load_core), *command]
    try:
        done = subprocess.run(
            pinned, capture_output=True, text=True, timeout=seconds + 30, env=environment
        )
    except subprocess.TimeoutExpired as problem:
        raise LoadFailed(f"{command[0]} did not end") from problem
    if done.returncode != 0:
        raise LoadFailed(f"{command[0]}: {(done.stdout + done.stderr)[-400:]}")
    return done.stdout


def header_flags(extra: dict[str, str] | None = None) -> list[str]:
    fields = {**dict(messages.FIELDS), **(extra or {})}
    return [part for name, value in fields.items() for part in ("-H", f"{name}: {value}")]


def wrk(
    stage: Stage, port: int, path: str, body: bytes | None, connections: int, seconds: float
) -> Load:
    # wrk takes whole seconds only.
    command = [need("wrk", "wrk"), "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s"]
    command += header_flags()
    if body is not None:
        script = stage.folder / "post.lua"
        script.write_text('wrk.method = "POST"\nwrk.body = [==[' + body.decode() + "]==]\n")
        command += ["-s", str(script)]
    return read_wrk(run(stage, command + [f"http://127.0.0.1:{port}{path}"], seconds))


def read_wrk(text: str) -> Load:
    total = re.search(r"(\d+) requests in ([\d.]+)(us|ms|s|m)", text)
    if total is None:
        raise LoadFailed(f"wrk said nothing of requests: {text[-400:]}")
    if wrong := re.search(r"(Non-2xx.*|Socket errors:.*)", text):
        raise LoadFailed(f"wrk: {wrong.group(1)}")
    seconds = float(total.group(2)) * UNITS[total.group(3)] / 1e6
    return Load(int(total.group(1)), seconds)


def h2load(
    stage: Stage,
    port: int,
    path: str,
    *,
    clients: int,
    streams: int = 1,
    seconds: float | None = None,
    count: int | None = None,
    http1: bool = False,
    body: bytes | None = None,
    fields: dict[str, str] | None = None,
) -> Load:
    """For a time, or an exact number of requests."""
    command = [need("h2load", "nghttp2-client"), f"-c{clients}", f"-m{streams}", "-t1"]
    command += ["--h1"] if http1 else []
    command += [f"-D{round(seconds * 1000)}ms"] if seconds is not None else [f"-n{count}"]
    command += header_flags(fields)
    if body is not None:
        file = stage.folder / f"body-{len(body)}"
        if not file.exists():
            file.write_bytes(body)
        command += ["-d", str(file)]
    text = run(stage, command + [f"http://127.0.0.1:{port}{path}"], seconds or 60)
    return read_h2load(text, is_timed=seconds is not None)


def read_h2load(text: str, *, is_timed: bool) -> Load:
    finished = re.search(r"finished in ([\d.]+)(us|ms|s|m)", text)
    counts = re.search(
        r"requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed,"
        r" (\d+) errored, (\d+) timeout",
        text,
    )
    codes = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", text)
    if finished is None or counts is None or codes is None:
        raise LoadFailed(f"h2load said nothing of requests: {text[-400:]}")
    done, succeeded, failed, errored, timeout = map(int, counts.groups())
    # At the end of a time, what is under way is given up, which h2load may count as failed.
    broken = timeout if is_timed else failed + errored + timeout
    if succeeded == 0 or broken or int(codes[3]) + int(codes[4]):
        raise LoadFailed(f"h2load: {counts.group(0)}; {codes.group(0)}")
    return Load(succeeded, float(finished.group(1)) * UNITS[finished.group(2)] / 1e6)


def own(
    stage: Stage,
    mode: str,
    port: int,
    path: str,
    body: bytes | None,
    connections: int,
    seconds: float,
    *,
    rate: int | None = None,
    tls: bool = False,
    certificate: bool = False,
) -> Load:
    """tools/load.c; `mode` is one of its own."""
    file = stage.folder / "request"
    file.write_bytes(messages.request_bytes(path, body))
    command = [str(stage.tool("load", "-lssl", "-lcrypto")), mode, "127.0.0.1", str(port)]
    command += [str(file), str(connections), str(seconds)] + ([str(rate)] if rate else [])
    environment: dict[str, str] = {}
    if tls:
        environment["LOAD_TLS"] = "1"
    if certificate:
        made = certificates(stage)
        environment["LOAD_CERTIFICATE"] = str(made.client)
        environment["LOAD_KEY"] = str(made.client_key)
    return read_own(run(stage, command, seconds, environment))


def read_own(text: str) -> Load:
    words = text.split()
    values = dict(zip(words[::2], words[1::2], strict=False))
    if "requests" not in values or int(values["errors"]) or not int(values["requests"]):
        raise LoadFailed(f"load: {text.strip()}")
    latency = {name: float(value) for name, value in values.items() if name.endswith("_us")}
    return Load(int(values["requests"]), float(values["seconds"]), latency)
