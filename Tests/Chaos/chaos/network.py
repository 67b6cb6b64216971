"""A network of the run's own: a namespace for each node, joined by a bridge, and partitions in it.

A partition is a wrong hardware address for the other node, so that frames go out and nobody takes
them: nothing is answered, nothing refused, as with a broken switch. It needs no firewall, works in
one direction alone, and connections that exist feel it as much as new ones.

Where namespaces are not allowed there is the loopback with an address for each node, and no
partitions; `Loopback.lacks` says why."""

import os
import pathlib
import subprocess

BRIDGE = "weir-br"
OWN_ADDRESS = "10.77.0.1"
NOWHERE = "02:00:00:77:ff:ff"
OWN_SPACES = "WEIR_CHAOS_OWN_SPACES"


class Namespaces:
    lacks = None

    def __init__(self, nodes: list[str]) -> None:
        self._number = {node: number for number, node in enumerate(nodes, 2)}
        ip("link", "set", "lo", "up")
        ip("link", "add", BRIDGE, "type", "bridge")
        ip("addr", "add", f"{OWN_ADDRESS}/24", "dev", BRIDGE)
        ip("link", "set", BRIDGE, "up")
        for node in nodes:
            self._join(node)

    def _join(self, node: str) -> None:
        port = f"weir-{self._number[node]}"
        ip("netns", "add", node)
        ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", node)
        ip("link", "set", port, "master", BRIDGE, "up")
        ip("-n", node, "link", "set", "eth0", "address", self._hardware(node))
        ip("-n", node, "addr", "add", f"{self.address(node)}/24", "dev", "eth0")
        for name in ("lo", "eth0"):
            ip("-n", node, "link", "set", name, "up")

    def address(self, node: str) -> str:
        return f"10.77.0.{self._number[node]}"

    def _hardware(self, node: str) -> str:
        return f"02:00:00:77:00:{self._number[node]:02x}"

    def command(self, node: str, command: list[str]) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{node}", "--", *command]

    def cut(self, sender: str, receiver: str) -> None:
        """From now on nothing that `sender` sends reaches `receiver`."""
        self._neighbour(sender, receiver, NOWHERE)

    def mend(self, sender: str, receiver: str) -> None:
        self._neighbour(sender, receiver, self._hardware(receiver))

    def is_cut(self, sender: str, receiver: str) -> bool:
        return NOWHERE in ip("-n", sender, "neigh", "show", self.address(receiver))

    def _neighbour(self, sender: str, receiver: str, hardware: str) -> None:
        entry = [self.address(receiver), "lladdr", hardware, "nud", "permanent", "dev", "eth0"]
        ip("-n", sender, "neigh", "replace", *entry)

    def unplug(self, node: str) -> None:
        ip("link", "set", f"weir-{self._number[node]}", "down")

    def plug(self, node: str) -> None:
        ip("link", "set", f"weir-{self._number[node]}", "up")

    def is_unplugged(self, node: str) -> bool:
        return "LOWER_UP" not in ip("-n", node, "link", "show", "eth0")


class Loopback:
    def __init__(self, nodes: list[str], lacks: str) -> None:
        self._number = {node: number for number, node in enumerate(nodes, 2)}
        self.lacks = lacks

    def address(self, node: str) -> str:
        return f"127.77.0.{self._number[node]}"

    def command(self, node: str, command: list[str]) -> list[str]:
        return command


def ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def made(nodes: list[str]) -> Namespaces | Loopback:
    """Only inside `unshare --net --mount`, as scripts/chaos says: there all of it ends with the
    run, and nothing of it is seen outside."""
    if os.environ.get(OWN_SPACES) != "yes":
        return Loopback(nodes, "unshare is not allowed")
    try:
        subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True, capture_output=True)
        pathlib.Path("/run/netns").mkdir()
        network = Namespaces(nodes)
    except (OSError, subprocess.CalledProcessError) as problem:
        return Loopback(nodes, str(problem))
    check(network, nodes[0], nodes[1])
    return network


def check(network: Namespaces, one: str, other: str) -> None:
    """That a cut cuts, that each direction is its own, and that a mended way is whole."""
    if not reaches(network, one, other):
        raise OSError(f"{one} does not reach {other}")
    for sender, receiver in ((one, other), (other, one)):
        network.cut(sender, receiver)
        if reaches(network, one, other):
            raise OSError("a cut does not cut")
        network.mend(sender, receiver)
    if not reaches(network, one, other):
        raise OSError("a mended way is not whole")


def reaches(network: Namespaces, sender: str, receiver: str) -> bool:
    """A refused connection is an answer, too."""
    probe = (
        "import socket, sys\n"
        "try: socket.create_connection((sys.argv[1], 9), 0.5)\n"
        "except ConnectionRefusedError: sys.exit(0)\n"
        "except OSError: sys.exit(1)\n"
    )
    command = network.command(sender, ["python3", "-c", probe, network.address(receiver)])
    return subprocess.run(command).returncode == 0
