"""Containerfile and compose.yaml, as far as they can be judged without a container runtime."""

import http.server
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import unittest

import chart
import yaml
from test_options import BIN

CONTAINERFILE = chart.ROOT / "Containerfile"
COMPOSE = chart.ROOT / "compose.yaml"
TOOLS = pathlib.Path(sys.prefix) / "bin"
# In every Debian: apt itself links them.
BASE = {"libc6", "libgcc-s1", "libstdc++6"}
PROGRAMS = {
    "sidecar": ["weir-sidecar"],
    "control-plane": ["weir-control-plane", "weir"],
    "sample-agents": ["weir-sample-agents"],
}
# Whom to trust where no authority is named: https:// agents; rediss:// and PostgreSQL.
READ = {"sidecar": {"ca-certificates"}, "control-plane": {"ca-certificates"}}


def stages():
    """Name to text of each stage."""
    parts = re.split(r"^FROM \S+ AS (\S+)\n", CONTAINERFILE.read_text(), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2]))


def installed(stage):
    text = stages()[stage].replace("\\\n", " ")
    found = re.search(r"apt-get install -y --no-install-recommends ([^&]*)&&", text)
    return set(found.group(1).split()) if found else set()


def linked(program):
    """Debian packages of the libraries that a program itself needs; theirs apt brings along."""
    listed = subprocess.run(
        ["ldd", BIN / program], text=True, capture_output=True, check=True).stdout
    dynamic = subprocess.run(
        ["readelf", "--dynamic", BIN / program], text=True, capture_output=True, check=True).stdout
    needed = re.findall(r"\(NEEDED\).*\[(\S+)\]", dynamic)
    packages = set()
    for name, path in re.findall(r"(\S+) => (/\S+)", listed):
        if name not in needed:
            continue
        if "/swift/" in path:
            packages.add("swift")
            continue
        # dpkg knows files by where they were before /lib became a link to /usr/lib.
        for candidate in (path, "/usr" + path, path.removeprefix("/usr")):
            found = subprocess.run(
                ["dpkg-query", "-S", candidate], text=True, capture_output=True, check=False)
            if found.returncode == 0:
                packages.add(found.stdout.split(":")[0])
                break
        else:
            raise AssertionError(f"no package owns {path}")
    return packages - BASE


class Images(unittest.TestCase):
    def test_hadolint(self):
        result = chart.run(str(TOOLS / "hadolint"), str(CONTAINERFILE))
        self.assertEqual((result.returncode, result.stdout), (0, ""))

    def test_packages_are_what_the_programs_link(self):
        for stage, programs in PROGRAMS.items():
            with self.subTest(stage=stage):
                packages = set().union(*map(linked, programs))
                has_runtime = f"swift:6.3-bookworm-slim AS {stage}" in CONTAINERFILE.read_text()
                self.assertEqual("swift" in packages, has_runtime)
                needed = packages - {"swift"} | READ.get(stage, set())
                self.assertEqual(needed, installed(stage))

    def test_programs_are_copied_and_built(self):
        for stage, programs in PROGRAMS.items():
            for program in programs:
                self.assertIn(f"/out/{program} ", stages()[stage].replace("\n", " "))
                self.assertIn(f"--product {program} ", stages()["build"].replace("\n", " "))

    def test_nobody_is_root(self):
        for stage in PROGRAMS:
            self.assertIn("\nUSER 65532:65532\n", stages()[stage], stage)

    def test_targets_are_the_images_of_the_chart(self):
        image = yaml.safe_load((chart.CHART / "values.yaml").read_text())["image"]
        names = {image[key] for key in ("sidecar", "controlPlane", "sampleAgents")}
        self.assertEqual(names, {"weir-" + stage for stage in PROGRAMS})


class Compose(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.services = yaml.safe_load(COMPOSE.read_text())["services"]

    def test_schema(self):
        result = chart.run(
            str(TOOLS / "check-jsonschema"), "--builtin-schema", "vendor.compose-spec",
            str(COMPOSE))
        self.assertEqual(result.returncode, 0, result.stdout)

    def test_the_containers_of_a_pod_share_a_network(self):
        sidecars = [name for name in self.services if name.endswith("-sidecar")]
        policy = yaml.safe_load_all((chart.ROOT / "manifests/policy/agents.yaml").read_text())
        agents = {one["metadata"]["name"] for one in policy if one}
        self.assertEqual({name.removesuffix("-sidecar") for name in sidecars}, agents)
        for name in sidecars:
            agent = name.removesuffix("-sidecar")
            service = self.services[name]
            self.assertEqual(service["network_mode"], f"service:{agent}")
            address = self.services[agent]["networks"]["mesh"]["ipv4_address"]
            self.assertIn(f"--advertise={address}:8001", service["command"])
            self.assertNotIn("ports", service)

    def test_addresses_of_the_control_plane_agree(self):
        address = self.services["control-plane"]["networks"]["mesh"]["ipv4_address"]
        for name, service in self.services.items():
            for argument in service.get("command", []):
                if argument.startswith("--control-plane="):
                    self.assertEqual(argument, f"--control-plane=http://{address}:8401", name)

    def test_only_the_gateway_and_the_api_are_published_and_on_this_machine(self):
        published = {
            name: service["ports"] for name, service in self.services.items()
            if "ports" in service}
        self.assertEqual(set(published), {"gateway", "control-plane"})
        for ports in published.values():
            for port in ports:
                self.assertTrue(port.startswith("127.0.0.1:"), port)
        self.assertIn("127.0.0.1:8000:8000", published["gateway"])

    def test_hardening(self):
        for name, service in self.services.items():
            if name == "postgres":
                continue
            self.assertIs(service["read_only"], True, name)
            self.assertEqual(service["cap_drop"], ["ALL"], name)
            self.assertEqual(service["security_opt"], ["no-new-privileges:true"], name)

    def test_every_secret_must_be_given_and_the_script_gives_it(self):
        wanted = set(re.findall(r"\$\{([A-Z_]+):\?", COMPOSE.read_text()))
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / ".env"
            script = str(chart.ROOT / "scripts" / "compose-secrets")
            for _ in range(2):
                self.assertEqual(chart.run(script, str(file)).returncode, 0)
            written = dict(line.split("=", 1) for line in file.read_text().splitlines())
            self.assertEqual(file.stat().st_mode & 0o777, 0o600)
        self.assertEqual(set(written), wanted)
        for name, value in written.items():
            self.assertRegex(value, r"^[0-9a-f]{64}$", name)

    def test_health_checks_tell_ready_from_not(self):
        """The scripts that the images run, against a server that says so."""
        if not shutil.which("bash"):
            self.skipTest("bash is missing")
        scripts = {
            name: service["healthcheck"]["test"] for name, service in self.services.items()
            if "bash" in service.get("healthcheck", {}).get("test", [])}
        self.assertGreaterEqual(len(scripts), 7)
        for status, expected in ((200, 0), (503, 1)):
            with Answering(status) as port:
                for name, (_, *command) in scripts.items():
                    # Compose reads $$ as $.
                    text = re.sub(
                        r"/127\.0\.0\.1/\d+", f"/127.0.0.1/{port}", command[-1]).replace("$$", "$")
                    result = chart.run(*command[:-1], text)
                    self.assertEqual(result.returncode, expected, f"{name}: {result.stderr}")


class Answering:
    """A server of this machine that answers every request with one status."""

    def __init__(self, status):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                self.end_headers()

            def log_message(self, *arguments):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self.server.server_address[1]

    def __exit__(self, *error):
        self.server.shutdown()
        self.server.server_close()


if __name__ == "__main__":
    unittest.main()
