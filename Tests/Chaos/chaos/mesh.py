"""The mesh: Redis, PostgreSQL, two control planes, four sidecars each before an agent of its own,
and two gateways, every node with an address and a clock of its own."""

import asyncio
import hashlib
import hmac
import json
import os
import pathlib
import pwd
import secrets
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request

from harness.budgets.mesh import base64url, encoded

from . import clock, documents, plan
from .network import Loopback, Namespaces
from .process import Program, Trouble

ROOT = pathlib.Path(__file__).resolve().parents[3]
API, MESH, LISTEN, ADMIN, AGENT, REDIS, ARCHIVE = 8400, 8401, 8001, 9090, 9000, 6379, 5432
READY_SECONDS = 60
TOKEN_SECONDS = 7 * 86_400


def binary(name: str) -> str:
    path = pathlib.Path(os.environ.get("WEIR_BIN", ROOT / ".build" / "release")) / name
    if not path.exists():
        raise SystemExit(f"{path} is missing: scripts/build makes it")
    return str(path)


def agent_of(node: str) -> str:
    return node.partition("-")[0]


class Mesh:
    def __init__(self, folder: pathlib.Path, network: Namespaces | Loopback) -> None:
        self.folder = folder
        self.network = network
        self.ahead = clock.to_the_middle_of_the_month(time.time())
        self._library = clock.compiled(folder)
        self._key = secrets.token_hex(32)
        self.programs: dict[str, Program] = {}
        self.agents: list[Program] = []
        for name in ("admin", "join", "jwt"):
            self._secret(name, self._key if name == "jwt" else secrets.token_hex(32))

    # --- Starting and ending

    async def start(self) -> None:
        for node in plan.SIDECARS:
            self._start_agent(node)
        self._start_redis()
        self._start_archive()
        for node in plan.CONTROL_PLANES:
            self._start_control_plane(node)
        await self.until_ready(plan.CONTROL_PLANES)
        self._apply()
        for node in plan.SIDECARS:
            await self._until_answers(f"http://{self.agent_address(node)}/sums", node)
            self._start_sidecar(node)
        for node in plan.GATEWAYS:
            self._start_gateway(node)
        await self.until_ready(plan.NODES)

    def end(self) -> None:
        for program in [*reversed(self.programs.values()), *self.agents]:
            program.end()

    def address(self, node: str, port: int) -> str:
        return f"{self.network.address(node)}:{port}"

    def _program(
        self, node: str, command: list[str], environment: dict[str, str], name: str | None = None
    ) -> Program:
        name = name or node
        steps = self.folder / f"{node}.clock"
        is_stepped = name == node and node not in plan.ARCHIVE
        return Program(
            name,
            node,
            self.network.command(node, command),
            self.folder / "log" / f"{name}.log",
            environment,
            clock.Clock(self._library, steps, self.ahead) if is_stepped else None,
        )

    def _begin(
        self, node: str, command: list[str], environment: dict[str, str] | None = None
    ) -> None:
        self.programs[node] = self._program(node, command, environment or {})
        self.programs[node].start()

    def _data(self, node: str) -> str:
        folder = self.folder / node
        folder.mkdir()
        return str(folder)

    def _secret(self, name: str, value: str) -> None:
        file = self.folder / f"{name}.secret"
        file.touch(mode=0o600)
        file.write_text(value)

    def _file(self, name: str) -> str:
        return str(self.folder / f"{name}.secret")

    # --- Each part

    def _start_redis(self) -> None:
        (node,) = plan.REDIS
        command = ["redis-server", "--bind", self.network.address(node), "--port", str(REDIS)]
        command += ["--protected-mode", "no", "--dir", self._data(node), "--daemonize", "no"]
        command += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        self._begin(node, [*command, "--maxmemory-policy", "noeviction"])

    def _start_archive(self) -> None:
        (node,) = plan.ARCHIVE
        found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"))
        if not found:
            raise SystemExit("PostgreSQL is missing (apt-get install postgresql)")
        data = pathlib.Path(self._data(node))
        as_user = []
        if os.geteuid() == 0:
            # PostgreSQL does not run as root.
            user = pwd.getpwnam("postgres")
            os.chown(data, user.pw_uid, user.pw_gid)
            as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]
        initdb = [str(found[-1] / "initdb"), "--pgdata", str(data), "--username", "weir"]
        initdb += ["--auth=trust", "--encoding=UTF8", "--no-sync", "--locale=C.UTF-8"]
        subprocess.run([*as_user, *initdb], check=True, capture_output=True, cwd="/")
        with (data / "pg_hba.conf").open("a") as rules:
            rules.write("host all all 10.77.0.0/24 trust\nhost all all 127.0.0.0/8 trust\n")
        command = [*as_user, str(found[-1] / "postgres"), "-D", str(data), "-k", str(data)]
        settings = {"listen_addresses": self.network.address(node), "port": ARCHIVE, "fsync": "off"}
        settings["shared_buffers"] = "16MB"
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        self._begin(node, command)

    def _start_control_plane(self, node: str) -> None:
        command = [binary("weir-control-plane"), "--api", self.address(node, API)]
        command += ["--mesh", self.address(node, MESH), "--data", self._data(node)]
        command += ["--redis", f"redis://{self.address('redis', REDIS)}"]
        archive = f"postgresql://weir@{self.address('archive', ARCHIVE)}/postgres"
        environment = {
            "DATABASE_URL": archive,
            "WEIR_MESH_PLAINTEXT": "network",
            "WEIR_ADMIN_TOKEN_FILE": self._file("admin"),
            "WEIR_JOIN_TOKEN_FILE": self._file("join"),
        }
        self._begin(node, command, environment)

    def _start_agent(self, node: str) -> None:
        script = str(pathlib.Path(__file__).parent / "agent.py")
        command = [sys.executable, script, agent_of(node), self.network.address(node), str(AGENT)]
        program = self._program(node, command, {}, f"{node}-agent")
        program.start()
        self.agents.append(program)

    def _start_sidecar(self, node: str) -> None:
        upstream = f"http://{self.agent_address(node)}"
        self._begin_sidecar(node, ["--agent", agent_of(node), "--upstream", upstream])

    def agent_address(self, node: str) -> str:
        return self.address(node, AGENT)

    def _start_gateway(self, node: str) -> None:
        environment = {"JWT_SECRET_KEY_FILE": self._file("jwt")}
        self._begin_sidecar(node, ["--role", "gateway"], environment)

    def _begin_sidecar(
        self, node: str, options: list[str], environment: dict[str, str] | None = None
    ) -> None:
        planes = ",".join(f"http://{self.address(plane, MESH)}" for plane in plan.CONTROL_PLANES)
        command = [binary("weir-sidecar"), *options, "--data", self._data(node)]
        command += ["--listen", self.address(node, LISTEN), "--admin", self.address(node, ADMIN)]
        command += ["--control-plane", planes, "--instance", node]
        common = {"WEIR_MESH_PLAINTEXT": "network", "WEIR_JOIN_TOKEN_FILE": self._file("join")}
        self._begin(node, command, {**common, **(environment or {})})

    def _apply(self) -> None:
        file = self.folder / "policy.yaml"
        file.write_text("\n---\n".join(json.dumps(item) for item in documents.policy()))
        done = self.weir("apply", "-f", str(file))
        if done.returncode != 0:
            raise Trouble(f"the policy was refused:\n{done.stdout}{done.stderr}")

    # --- Asking

    async def until_ready(self, nodes: tuple[str, ...], seconds: float = READY_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        waiting = [node for node in nodes if node not in (*plan.REDIS, *plan.ARCHIVE)]
        while waiting:
            for node in waiting:
                self.programs[node].check()
            waiting = [node for node in waiting if not self._is_ready(node)]
            if waiting and time.monotonic() > deadline:
                words = "\n".join(self.programs[node].last_words() for node in waiting)
                raise Trouble(f"not ready after {seconds:.0f} s: {', '.join(waiting)}\n{words}")
            await asyncio.sleep(0.1)

    def _is_ready(self, node: str) -> bool:
        port = API if node in plan.CONTROL_PLANES else ADMIN
        return answers(f"http://{self.address(node, port)}/readyz")

    async def _until_answers(self, url: str, what: str) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not answers(url):
            if time.monotonic() > deadline:
                raise Trouble(f"the agent of {what} does not answer")
            await asyncio.sleep(0.05)

    def weir(self, *arguments: str) -> subprocess.CompletedProcess:
        server = f"http://{self.address(plan.CONTROL_PLANES[0], API)}"
        environment = {**os.environ, "WEIR_ADMIN_TOKEN_FILE": self._file("admin")}
        command = [binary("weir"), *arguments, "--server", server]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)

    def token(self, user: documents.User) -> str:
        now = int(time.time()) + self.ahead
        claims = {"sub": user.name, "tier": user.tier, "exp": now + TOKEN_SECONDS}
        if user.tenant:
            claims["tenant"] = user.tenant
        signed = f"{encoded({'alg': 'HS256', 'typ': 'JWT'})}.{encoded(claims)}"
        code = hmac.new(self._key.encode(), signed.encode(), hashlib.sha256).digest()
        return f"{signed}.{base64url(code)}"

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1):
            return True
    except (urllib.error.URLError, OSError):
        return False
