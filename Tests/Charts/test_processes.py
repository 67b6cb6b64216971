"""The rendered chart, run: what a kubelet would do with it, in miniature and on this machine.

Each pod gets a loopback address of its own (127.77.0.N) for its containers' 0.0.0.0 and its pod IP;
names of Services become those of pods; Secrets and ConfigMaps become files, the latter as a
kubelet mounts them; containers are processes with the rendered command, arguments and variables;
probes ask what they would ask. There is no image, no network policy and no user in it.
"""

import base64
import hashlib
import hmac
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

import chart
import yaml
from test_options import BIN

VALUES = [
    "--set", "secrets.generate=true", "--set", "gateway.replicas=1", "--set", "secrets.openaiKey=x"]


class Pod:
    """The processes of one pod."""

    def __init__(self, node, workload, address):
        self.node, self.address = node, address
        self.spec = chart.pod(workload)
        self.name = workload["metadata"]["name"]
        self.folder = node.folder / self.name
        self.processes = {}

    def start(self):
        for volume in self.spec["volumes"]:
            self.mount(volume)
        for container in self.spec["containers"]:
            self.run(container)

    def path(self, volume):
        return self.folder / volume

    def mount(self, volume):
        path = self.path(volume["name"])
        path.mkdir(parents=True)
        if "secret" in volume:
            data = self.node.data("Secret", volume["secret"]["secretName"])
            for item in volume["secret"]["items"]:
                (path / item["path"]).write_bytes(base64.b64decode(data[item["key"]]))
        elif "configMap" in volume:
            hidden = path / "..2026_11_22"
            hidden.mkdir()
            (path / "..data").symlink_to(hidden.name)
            for name, text in self.node.data("ConfigMap", volume["configMap"]["name"]).items():
                (hidden / name).write_text(text)
                (path / name).symlink_to(f"..data/{name}")

    def translate(self, container, text):
        """Paths of mounts, addresses of listeners and names of Services."""
        mounts = {one["mountPath"]: one["name"] for one in container.get("volumeMounts", [])}
        if mounts:
            # In one go: what is put in for one mount may look like another.
            longest_first = sorted(map(re.escape, mounts), key=len, reverse=True)
            text = re.sub(
                "(?:" + "|".join(longest_first) + r")(?=[/\s]|$)",
                lambda match: str(self.path(mounts[match.group()])), text)
        text = text.replace("0.0.0.0", self.address).replace("127.0.0.1", self.address)
        for service, address in self.node.services.items():
            text = re.sub(rf"(?<=[/@]){re.escape(service)}(?=:)", address, text)
        return text

    def variables(self, container):
        found = {}
        for one in container.get("env", []):
            if "value" in one:
                value = re.sub(r"\$\((\w+)\)", lambda m: found[m.group(1)], one["value"])
            elif "fieldRef" in one["valueFrom"]:
                field = one["valueFrom"]["fieldRef"]["fieldPath"]
                value = {"status.podIP": self.address, "metadata.name": self.name}[field]
            else:
                reference = one["valueFrom"]["secretKeyRef"]
                data = self.node.data("Secret", reference["name"])
                value = base64.b64decode(data[reference["key"]]).decode()
            found[one["name"]] = value
        return {name: self.translate(container, value) for name, value in found.items()}

    def run(self, container):
        command = [
            self.translate(container, part)
            for part in container["command"] + container.get("args", [])]
        if container["name"] == "redis":
            # A container has its network to itself; here it shares the machine with others.
            command[2] = command[2].replace("requirepass", f"bind {self.address}\nrequirepass")
            settings = self.path("config") / "..data" / "redis.conf"
            settings.write_text(
                settings.read_text().replace("dir /data", f"dir {self.path('data')}"))
            self.path("data").mkdir(exist_ok=True)
        environment = {"PATH": f"{BIN}:{os.environ['PATH']}", **self.variables(container)}
        log = (self.folder / f"{container['name']}.log").open("w")
        self.processes[container["name"]] = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, cwd=self.folder)

    def probe(self, container, kind):
        """Whether a probe of a container succeeds."""
        action = container[kind].get("httpGet")
        if not action:
            environment = {"PATH": os.environ["PATH"], **self.variables(container)}
            command = [
                part.replace("redis-cli", f"redis-cli -h {self.address}")
                for part in container[kind]["exec"]["command"]]
            return subprocess.run(
                command, env=environment, capture_output=True, timeout=10,
                check=False).returncode == 0
        port = next(
            port["containerPort"] for port in container["ports"] if port["name"] == action["port"])
        return get(self.address, port, action["path"])[0] == 200

    def is_ready(self):
        return all(
            self.probe(container, kind)
            for container in self.spec["containers"]
            for kind in ("startupProbe", "livenessProbe", "readinessProbe"))

    def stop(self):
        """As on a pod's end: the container that waits in preStop comes last."""
        names = [one["name"] for one in self.spec["containers"]]
        for name in sorted(names, key=lambda name: name == "agent"):
            process = self.processes.get(name)
            if process and process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def logs(self):
        return "".join(
            f"--- {self.name}: {file.name}\n" + "".join(file.read_text().splitlines(True)[-8:])
            for file in sorted(self.folder.glob("*.log")))


class Node:
    def __init__(self, folder):
        self.folder = folder
        text = chart.template(VALUES, release="mesh", kube_version="1.28.0").stdout
        self.objects = [one for one in yaml.safe_load_all(text) if one]
        workloads = [one for one in self.objects if one["kind"] in ("Deployment", "StatefulSet")]
        self.pods = {
            one["metadata"]["name"]: Pod(self, one, f"127.77.0.{number}")
            for number, one in enumerate(workloads, 10)}
        job = next(one for one in self.objects if one["kind"] == "Job")
        self.job = Pod(self, job, "127.77.0.9")
        # A Service has the name of the workload behind it.
        self.services = {
            one["metadata"]["name"]: self.pods[one["metadata"]["name"]].address
            for one in self.objects if one["kind"] == "Service"}

    def data(self, kind, name):
        return next(
            one["data"] for one in self.objects
            if one["kind"] == kind and one["metadata"]["name"] == name)

    def part(self, name):
        return self.pods[f"mesh-weir-{name}"]

    def stop(self):
        gateways = [pod for name, pod in self.pods.items() if name.endswith("gateway")]
        last = [self.part("control-plane"), self.part("redis")]
        others = [pod for pod in self.pods.values() if pod not in gateways + last]
        for pod in gateways + others + last:
            pod.stop()


class Processes(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if not shutil.which("redis-server"):
            raise unittest.SkipTest("redis-server is missing (apt-get install redis-server)")
        folder = pathlib.Path(tempfile.mkdtemp())
        cls.addClassCleanup(shutil.rmtree, folder, ignore_errors=True)
        cls.node = Node(folder)
        cls.addClassCleanup(cls.node.stop)
        for pod in cls.node.pods.values():
            pod.start()

    def test_the_mesh_of_the_chart_serves(self):
        node = self.node
        self.until(node.part("redis").is_ready)
        self.until(node.part("control-plane").is_ready)
        self.apply_policy()
        for pod in node.pods.values():
            self.until(pod.is_ready)
        gateway = node.part("gateway")
        key = base64.b64decode(node.data("Secret", "mesh-weir-secrets")["jwt-secret-key"])
        body = json.dumps({
            "analysis_type": "news_analysis", "data": {"text": "Shares surged after earnings"}})
        # Endpoints reach the gateway a moment after their sidecars are ready.
        status, answer = self.until(lambda: answered(gateway.address, key, body))
        self.assertEqual((status, answer["status"]), (200, "complete"), answer)
        self.assertEqual([step["status"] for step in answer["steps"]], ["ok", "ok"])

    def apply_policy(self):
        """With the retries that the Job has."""
        job = self.node.job
        for volume in job.spec["volumes"]:
            job.mount(volume)
        job.run(job.spec["containers"][0])
        self.assertEqual(job.processes["apply"].wait(30), 0, job.logs())

    def until(self, condition, seconds=60):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                found = condition()
            except OSError:
                found = None
            if found:
                return found
            time.sleep(0.1)
        self.fail("not in time:\n" + "".join(pod.logs() for pod in self.node.pods.values()))


def get(address, port, path):
    connection = http.client.HTTPConnection(address, port, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def answered(address, key, body):
    """(status, answer) of an analysis; None while no agent is known yet."""
    connection = http.client.HTTPConnection(address, 8000, timeout=30)
    try:
        connection.request("POST", "/analyze", body, {
            "authorization": f"Bearer {token(key)}", "content-type": "application/json"})
        response = connection.getresponse()
        answer = json.loads(response.read())
        return None if answer.get("reason") == "no_endpoint" else (response.status, answer)
    finally:
        connection.close()


def token(key):
    def encoded(value):
        raw = value if isinstance(value, bytes) else json.dumps(value).encode()
        return base64.urlsafe_b64encode(raw).rstrip(b"=")

    claims = {"sub": "chart", "tier": "premium", "exp": int(time.time()) + 300}
    text = encoded({"alg": "HS256", "typ": "JWT"}) + b"." + encoded(claims)
    return (text + b"." + encoded(hmac.new(key, text, hashlib.sha256).digest())).decode()


if __name__ == "__main__":
    unittest.main()
