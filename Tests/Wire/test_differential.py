"""The same bytes to Weir, nginx and HAProxy, each before a recording upstream. Where they disagree
about what was asked, Weir must be the strictest: what reaches its upstream is what reaches the
others', or less of it. Anything else is named in `ALLOWED`, with its reason."""

import pathlib
import socket
import tempfile
import threading
import unittest

import conversations
import peers
from recorder import Recorder
from weir import Weir

# How long a server may think before it counts as silent.
QUIET_SECONDS = 0.4
READ_SECONDS_MAX = 3

# conversation -> (the peer that is stricter, why Weir need not be).
ALLOWED = {
    "a method in lower case": (
        "nginx",
        "RFC 9110 §9.1: methods are any token, and case matters; what `get` means the agent knows",
    ),
    "an escape that is none": (
        "nginx",
        "nginx decodes targets to choose a location; Weir neither decodes nor changes them, and the"
        " request ends at the same byte",
    ),
    "a length behind a tab": (
        "nginx",
        "RFC 9110 §5.6.3: a tab is optional white space like a space, and RFC 9112 §5 has it"
        " excluded from the value",
    ),
}


def hold(port, said):
    """Says it, and reads until the other side closes or has nothing more to say."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.settimeout(QUIET_SECONDS)
        try:
            connection.sendall(said + conversations.BEHIND)
            while more := connection.recv(65536):
                received += more
        except (TimeoutError, ConnectionError):
            pass
    return received


class Side:
    """One proxy with its recorder, and what came of each conversation."""

    def __init__(self, start, folder):
        self.recorder = Recorder()
        self.proxy = start(folder, self.recorder.port)
        self.name = self.proxy.name
        self.seen = {}
        self.broken = {}

    def hold_all(self):
        for name, said in conversations.ALL.items():
            hold(self.proxy.port, said)
            requests, broken = self.recorder.taken()
            self.seen[name] = [request.key() for request in requests]
            if broken:
                self.broken[name] = broken

    def close(self):
        self.proxy.__exit__()
        self.recorder.close()


def is_stricter_or_equal(mine, others):
    """What I let through is how theirs begins."""
    return mine == others[: len(mine)]


class Differential(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="weir-wire-")
        cls.sides = []
        for name, start in (("weir", Weir), ("nginx", peers.nginx), ("haproxy", peers.haproxy)):
            folder = pathlib.Path(cls.folder.name, name)
            folder.mkdir()
            cls.sides.append(Side(lambda f, p, start=start: start(f, p), folder))
        threads = [threading.Thread(target=side.hold_all) for side in cls.sides]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        cls.weir, *cls.peers = cls.sides

    @classmethod
    def tearDownClass(cls):
        for side in cls.sides:
            side.close()
        cls.folder.cleanup()

    def test_there_are_enough_conversations(self):
        self.assertGreaterEqual(len(conversations.ALL), 80)

    def test_weir_never_sends_what_is_no_request(self):
        self.assertEqual(self.weir.broken, {})

    def test_good_requests_pass_everywhere(self):
        for name in ("a plain request", "a length", "chunks", "two requests in one write"):
            expected = 3 if name.startswith("two") else 2
            for side in self.sides:
                with self.subTest(conversation=name, proxy=side.name):
                    self.assertEqual(len(side.seen[name]), expected)

    def test_weir_is_the_strictest(self):
        unused = set(ALLOWED)
        for name in conversations.ALL:
            for peer in self.peers:
                with self.subTest(conversation=name, peer=peer.name):
                    mine, theirs = self.weir.seen[name], peer.seen[name]
                    if is_stricter_or_equal(mine, theirs):
                        continue
                    if ALLOWED.get(name, ("",))[0] == peer.name:
                        unused.discard(name)
                        continue
                    self.fail(f"weir let through {mine}, {peer.name} {theirs}")
        self.assertEqual(unused, set(), "these agree by now: take them out of ALLOWED")

    def test_peers_disagree_with_one_another(self):
        """Otherwise the table would show nothing."""
        nginx, haproxy = self.peers
        differing = [name for name in conversations.ALL if nginx.seen[name] != haproxy.seen[name]]
        print(f"{len(conversations.ALL)} conversations, nginx and HAProxy differ in {len(differing)}")
        self.assertGreater(len(differing), 10)
