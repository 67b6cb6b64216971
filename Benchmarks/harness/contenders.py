"""Who is measured, and what each can do."""

import functools
import subprocess
from dataclasses import dataclass
from typing import Callable

from . import peers, weir
from .stage import Stage, release_binary

RELAY, WEIR, METERED, DATA_PLANE = "relay", "weir", "metered", "data-plane"
NGINX, HAPROXY, NGHTTPX, ENVOY = "nginx", "haproxy", "nghttpx", "envoy"


@dataclass(frozen=True)
class Contender:
    key: str
    name: str
    """Form of traffic, port to listen on, port of the upstream → the command that serves it."""
    command: Callable[[Stage, str, int, int], list[str]]
    """Why it cannot serve a form; None when it can."""
    cannot: Callable[[str], str | None]


@functools.cache
def weir_options() -> str:
    return subprocess.run(
        [str(release_binary("weir-sidecar")), "--help"], capture_output=True, text=True
    ).stdout


def weir_cannot(form: str) -> str | None:
    needed = weir.OPTIONS_OF_FORM.get(form)
    if needed is not None and needed not in weir_options():
        return f"this build has no {needed}"
    return None


def weir_command(metered: bool) -> Callable[[Stage, str, int, int], list[str]]:
    def make(stage: Stage, form: str, listen: int, upstream: int) -> list[str]:
        name = f"weir-{form}-{listen}"
        return weir.command(
            stage,
            name,
            listen,
            upstream,
            metered=metered,
            options=weir.form_options(stage, form),
            scheme=weir.scheme(form),
        )

    return make


def relay_command(stage: Stage, _: str, listen: int, upstream: int) -> list[str]:
    return [str(stage.tool("relay")), str(listen), str(upstream)]


def relay_cannot(form: str) -> str | None:
    reasons = {
        "tls": "it parses nothing, and the upstream speaks no TLS",
        "mtls": "it parses nothing, and the upstream speaks no TLS",
        "h2": "it parses nothing, and the upstream speaks HTTP/1.1",
    }
    return reasons.get(form)


def data_plane_command(stage: Stage, _: str, listen: int, upstream: int) -> list[str]:
    binary = release_binary("DataPlaneBenchmark")
    return [str(binary), f"127.0.0.1:{listen}", f"127.0.0.1:{upstream}"]


def data_plane_cannot(form: str) -> str | None:
    return None if form == "h1" else "measured with HTTP/1.1 only"


def anything(_: str) -> None:
    return None


CONTENDERS = {
    contender.key: contender
    for contender in [
        Contender(RELAY, "byte relay", relay_command, relay_cannot),
        Contender(WEIR, "Weir", weir_command(metered=False), weir_cannot),
        Contender(METERED, "Weir, metered", weir_command(metered=True), weir_cannot),
        Contender(DATA_PLANE, "Weir's data plane", data_plane_command, data_plane_cannot),
        Contender(NGINX, "nginx", peers.nginx, anything),
        Contender(HAPROXY, "HAProxy", peers.haproxy, anything),
        Contender(NGHTTPX, "nghttpx", peers.nghttpx, anything),
        Contender(ENVOY, "Envoy", peers.envoy, anything),
    ]
}
