"""What the chart and compose.yaml tell the programs is what the programs understand: flags and
variables are compared with --help, the command line of Redis with a real one."""

import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest

import chart
import yaml

BIN = pathlib.Path(os.environ.get("WEIR_BIN", chart.ROOT / ".build" / "release"))
# Variables that the programs do not read but that others in the container do.
FOR_OTHERS = {"POD_IP", "REDIS_PASSWORD", "REDISCLI_AUTH", "MODEL", "WEIR_EXAMPLE"}


def understood(program, *subcommand):
    """(flags, variables) that a program's help names."""
    path = BIN / program
    assert path.exists(), f"{path} is not built"
    text = chart.run(str(path), *subcommand, "--help").stdout
    if subcommand:
        # What holds for all subcommands is said by the program itself.
        text += chart.run(str(path), "--help").stdout
    flags = set(re.findall(r"--[a-z][a-z-]*", text))
    names = set(re.findall(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b|\bDEBUG\b", text))
    # A secret may be named by a file, too.
    return flags, names | {name + "_FILE" for name in names}


class Options(unittest.TestCase):
    def check(self, where, command, arguments, variables):
        program = pathlib.Path(command[0]).name
        subcommand = [arguments[0]] if program == "weir" else []
        flags, names = understood(program, *subcommand)
        for argument in arguments[len(subcommand):]:
            self.assertRegex(argument, r"^--[a-z-]+(=.*)?$", where)
            self.assertIn(argument.split("=")[0], flags, where)
        unknown = set(variables) - names - FOR_OTHERS
        self.assertEqual(unknown, set(), where)

    def test_of_the_chart(self):
        checked = set()
        for values in chart.VALUE_SETS:
            for workload, container in chart.containers(values):
                program = container.get("command", [""])[0]
                if not program.startswith("weir"):
                    continue
                checked.add(program)
                with self.subTest(values=values, workload=chart.name(workload)):
                    self.check(
                        f"{chart.name(workload)}: {container['name']}", container["command"],
                        container["args"], [one["name"] for one in container.get("env", [])])
        self.assertEqual(
            checked, {"weir", "weir-control-plane", "weir-sidecar", "weir-sample-agents"})

    def test_of_compose(self):
        services = yaml.safe_load((chart.ROOT / "compose.yaml").read_text())["services"]
        checked = 0
        for name, service in services.items():
            command = service.get("command")
            if not isinstance(command, list) or not command[0].startswith("weir"):
                continue
            checked += 1
            with self.subTest(service=name):
                self.check(name, command, command[1:], service.get("environment", {}))
        self.assertGreater(checked, 8)

    def test_a_flag_that_nobody_has_is_found(self):
        with self.assertRaises(AssertionError):
            self.check("", ["weir-sidecar"], ["--lisden=x"], [])

    def test_every_service_url_of_the_gateway_is_one_that_it_reads(self):
        _, names = understood("weir-sidecar")
        result = chart.template([
            part for agent in ("finbert", "gpt4-turbo", "llama2-7b", "tft", "risk")
            for part in ("--set", f"gateway.services.{agent}=http://{agent}.other.svc:8001")])
        found = set(re.findall(r"name: ([A-Z0-9]+_SERVICE_URL)", result.stdout))
        self.assertEqual(found, {name for name in names if name.endswith("_SERVICE_URL")})


class Redis(unittest.TestCase):
    """The rendered command and settings, run by the redis-server of this machine."""

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)

    def test_asks_for_the_password_and_keeps_what_it_acknowledged(self):
        if not shutil.which("redis-server"):
            self.skipTest("redis-server is missing (apt-get install redis-server)")
        settings = next(
            one["data"]["redis.conf"] for one in chart.of_kind("default", "ConfigMap")
            if "redis.conf" in one["data"])
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        configuration = self.folder / "redis.conf"
        configuration.write_text(
            settings.replace("dir /data", f"dir {self.folder}")
            + f"port {port}\nbind 127.0.0.1\n")
        container = next(
            container for _, container in chart.containers("default")
            if container["name"] == "redis")
        shell, flag, script = container["command"]
        script = script.replace("/etc/redis/redis.conf", str(configuration))
        process = subprocess.Popen(
            [shell, flag, script], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={"PATH": os.environ["PATH"], "REDIS_PASSWORD": "a-password-of-tests"})
        self.addCleanup(process.wait, 10)
        self.addCleanup(process.send_signal, signal.SIGTERM)
        self.assertEqual(self.until(port, "PING", b"NOAUTH"), b"NOAUTH")
        for setting, value in (
                ("appendfsync", b"always"), ("maxmemory-policy", b"noeviction"),
                ("appendonly", b"yes")):
            answer = self.ask(port, f"AUTH a-password-of-tests\r\nCONFIG GET {setting}")
            self.assertIn(value, answer)

    def until(self, port, command, word, seconds=10):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if word in self.ask(port, command):
                    return word
            except OSError:
                pass
            time.sleep(0.05)
        return b""

    def ask(self, port, commands):
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(commands.encode() + b"\r\nQUIT\r\n")
            answer = b""
            while part := connection.recv(4096):
                answer += part
            return answer


if __name__ == "__main__":
    unittest.main()
