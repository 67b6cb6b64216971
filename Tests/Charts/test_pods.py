"""What must hold for every pod that the chart makes."""

import re
import unittest

import chart
import yaml

SIDECAR_PORT, MESH_PORT = 8001, 8401


def everywhere(test):
    """Runs a test for every set of values."""

    def each(self):
        for values in chart.VALUE_SETS:
            with self.subTest(values=values):
                test(self, values)

    return each


class Restricted(unittest.TestCase):
    """Pod Security "restricted", and a little more."""

    @everywhere
    def test_pods(self, values):
        self.assertGreaterEqual(len(chart.workloads(values)), 3)
        for workload in chart.workloads(values):
            pod = chart.pod(workload)
            name = chart.name(workload)
            security = pod["securityContext"]
            self.assertIs(security["runAsNonRoot"], True, name)
            self.assertGreaterEqual(security["runAsUser"], 10000, name)
            self.assertEqual(security["seccompProfile"], {"type": "RuntimeDefault"}, name)
            self.assertIs(pod["automountServiceAccountToken"], False, name)
            for host in ("hostNetwork", "hostPID", "hostIPC"):
                self.assertNotIn(host, pod, name)
            kinds = {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
            self.assertLessEqual(
                kinds, {"secret", "configMap", "emptyDir", "persistentVolumeClaim"}, name)

    @everywhere
    def test_containers(self, values):
        for workload, container in chart.containers(values):
            name = f"{chart.name(workload)}: {container['name']}"
            security = container["securityContext"]
            self.assertIs(security["allowPrivilegeEscalation"], False, name)
            self.assertIs(security["privileged"], False, name)
            self.assertIs(security["readOnlyRootFilesystem"], True, name)
            self.assertEqual(security["capabilities"], {"drop": ["ALL"]}, name)
            self.assertNotEqual(security.get("runAsUser"), 0, name)

    @everywhere
    def test_resources_and_probes(self, values):
        for workload, container in chart.containers(values):
            name = f"{chart.name(workload)}: {container['name']}"
            resources = container["resources"]
            self.assertIn("memory", resources["limits"], name)
            self.assertLessEqual({"cpu", "memory"}, set(resources["requests"]), name)
            if workload["kind"] == "Job":
                continue
            ports = {port["name"] for port in container["ports"]}
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                action = container[probe].get("httpGet")
                if action:
                    self.assertIn(action["port"], ports, name)
                else:
                    self.assertIn("exec", container[probe], name)

    @everywhere
    def test_accounts_exist_and_carry_no_token(self, values):
        accounts = {one["metadata"]["name"]: one for one in chart.of_kind(values, "ServiceAccount")}
        for workload in chart.workloads(values):
            account = accounts.pop(chart.pod(workload)["serviceAccountName"])
            self.assertIs(account["automountServiceAccountToken"], False)
        self.assertEqual(accounts, {}, "accounts that nobody uses")

    @everywhere
    def test_volumes_are_those_that_are_mounted(self, values):
        for workload in chart.workloads(values):
            volumes = {volume["name"] for volume in chart.pod(workload)["volumes"]}
            claims = workload["spec"].get("volumeClaimTemplates", [])
            volumes |= {claim["metadata"]["name"] for claim in claims}
            mounted = {
                mount["name"]
                for container in chart.pod(workload)["containers"]
                for mount in container.get("volumeMounts", [])
            }
            self.assertEqual(volumes, mounted, chart.name(workload))

    @everywhere
    def test_claims_have_one_owner(self, values):
        claims = {one["metadata"]["name"] for one in chart.of_kind(values, "PersistentVolumeClaim")}
        for workload in chart.workloads(values):
            for volume in chart.pod(workload)["volumes"]:
                claim = volume.get("persistentVolumeClaim")
                if claim:
                    claims.remove(claim["claimName"])
                    self.assertEqual(workload["spec"]["strategy"], {"type": "Recreate"})
                    self.assertEqual(workload["spec"]["replicas"], 1)
        self.assertEqual(claims, set(), "claims that nobody uses")


class Secrets(unittest.TestCase):
    SECRET = re.compile(r"TOKEN|KEY|PASSWORD|SECRET|DATABASE_URL|REDIS_URL")

    @everywhere
    def test_none_in_plain_sight(self, values):
        for workload, container in chart.containers(values):
            for variable in container.get("env", []):
                name = f"{chart.name(workload)}: {variable['name']}"
                if not self.SECRET.search(variable["name"]) or "valueFrom" in variable:
                    continue
                value = variable["value"]
                is_path = variable["name"].endswith("_FILE") and value.startswith("/etc/weir/")
                holds_reference = "$(REDIS_PASSWORD)" in value
                self.assertTrue(is_path or holds_reference, name)
            for argument in container.get("args", []) + container.get("command", []):
                self.assertNotRegex(argument, r"(?i)--[a-z-]*(password|secret|api-key)=")

    @everywhere
    def test_values_of_secrets_appear_only_in_secrets(self, values):
        given = {"example-openai-key", "example-huggingface-key", "weir:example@", ":example@",
                 "0123456789abcdef0123456789abcdef"}
        for one in chart.objects(values):
            if one["kind"] != "Secret":
                found = [secret for secret in given if secret in yaml.safe_dump(one)]
                self.assertEqual(found, [], chart.name(one))

    @everywhere
    def test_files_of_secrets_are_mounted(self, values):
        for workload, container in chart.containers(values):
            volumes = {volume["name"]: volume for volume in chart.pod(workload)["volumes"]}
            files = set()
            for mount in container.get("volumeMounts", []):
                secret = volumes.get(mount["name"], {}).get("secret")
                if secret:
                    self.assertIs(mount["readOnly"], True)
                    files |= {f"{mount['mountPath']}/{item['path']}" for item in secret["items"]}
            named = {
                variable["value"] for variable in container.get("env", [])
                if variable["name"].endswith("_FILE")}
            named |= {
                argument.split("=", 1)[1] for argument in container.get("args", [])
                if argument.startswith("--token-file=")}
            self.assertEqual(files, named, f"{chart.name(workload)}: {container['name']}")

    @everywhere
    def test_keys_exist_in_the_secrets_that_the_chart_writes(self, values):
        written = {
            one["metadata"]["name"]: set(one["data"]) for one in chart.of_kind(values, "Secret")}
        for workload, container in chart.containers(values):
            wanted = [
                (volume["secret"]["secretName"], item["key"])
                for volume in chart.pod(workload)["volumes"] if "secret" in volume
                for item in volume["secret"]["items"]]
            wanted += [
                (reference["name"], reference["key"])
                for variable in container.get("env", [])
                if (reference := variable.get("valueFrom", {}).get("secretKeyRef"))]
            for secret, key in wanted:
                if secret in written:
                    self.assertIn(key, written[secret], chart.name(workload))

    def test_only_who_needs_them(self):
        """The administrator's token: control plane and policy. Tokens of users: the gateway."""
        holders = {}
        for workload in chart.workloads("default"):
            part = chart.pod_labels(workload)["app.kubernetes.io/component"].split("-")[0]
            for volume in chart.pod(workload)["volumes"]:
                for item in volume.get("secret", {}).get("items", []):
                    holders.setdefault(item["key"], set()).add(part)
        self.assertEqual(holders, {
            "admin-token": {"control", "policy"},
            "join-token": {"control", "gateway", "agent"},
            "jwt-secret-key": {"gateway"},
        })

    def test_generated_only_when_asked(self):
        self.assertEqual(chart.of_kind("default", "Secret"), [])
        names = {one["metadata"]["name"] for one in chart.of_kind("everything", "Secret")}
        self.assertIn("agent-orchestration-weir-secrets", names)

    def test_generated_ones_differ(self):
        first, second = (
            chart.template(["--set", "secrets.generate=true"]).stdout for _ in range(2))
        tokens = [
            one["data"] for text in (first, second) for one in yaml.safe_load_all(text)
            if one and one["kind"] == "Secret"]
        values = [value for data in tokens for value in data.values()]
        self.assertEqual(len(values), 8)
        self.assertEqual(len(set(values)), 8)


class Network(unittest.TestCase):
    """What the policies let through, by what their selectors select."""

    def policies(self, values, labels):
        return [
            one["spec"] for one in chart.of_kind(values, "NetworkPolicy")
            if chart.selects(one["spec"]["podSelector"], labels)]

    def admits(self, values, source, target, port, direction="ingress"):
        """Whether pods with labels `source` may reach a named port of pods with `target`."""
        one, other = (source, target) if direction == "egress" else (target, source)
        word = "to" if direction == "egress" else "from"
        for spec in self.policies(values, one):
            for rule in spec.get(direction, []):
                ports = rule.get("ports")
                if ports and not any(entry.get("port") == port for entry in ports):
                    continue
                if word not in rule:
                    return True
                for peer in rule[word]:
                    selector = peer.get("podSelector")
                    if selector and "namespaceSelector" not in peer:
                        if chart.selects(selector, other):
                            return True
        return False

    def sets(self):
        return [values for values in chart.VALUE_SETS if values != "ipv6"]

    def test_every_pod_has_one(self):
        for values in self.sets():
            for workload in chart.workloads(values):
                with self.subTest(values=values, workload=chart.name(workload)):
                    found = self.policies(values, chart.pod_labels(workload))
                    self.assertEqual(len(found), 1)
                    self.assertEqual(found[0]["policyTypes"], ["Ingress", "Egress"])

    def test_who_reaches_what(self):
        members = {"gateway", "agent"}
        # From, to, port: everything else is shut.
        wanted = {
            *((member, "control", "mesh") for member in members),
            ("gateway", "agent", "inbound"), ("control", "redis", "redis"),
            ("policy", "control", "api"),
            # The public entrance.
            *((part, "gateway", "http") for part in ("control", "gateway", "agent", "redis",
                                                     "policy", "stranger")),
        }
        pods = {"stranger": {"app": "stranger"}}
        ports = {"stranger": set()}
        for workload in chart.workloads("default"):
            labels = chart.pod_labels(workload)
            part = labels["app.kubernetes.io/component"].split("-")[0]
            if labels["app.kubernetes.io/component"] == "control-plane":
                part = "control"
            pods[part] = labels
            ports[part] = {
                port["name"] for container in chart.pod(workload)["containers"]
                for port in container.get("ports", [])}
        found = {
            (source, target, port)
            for source in pods for target in pods for port in ports[target]
            if self.admits("default", pods[source], pods[target], port)}
        self.assertEqual(found, wanted)
        # What is let in must be let out, too.
        for source, target, port in wanted:
            if (source, port) not in {(s, "http") for s in pods}:
                self.assertTrue(
                    self.admits("default", pods[source], pods[target], port, "egress"),
                    (source, target, port))

    def test_the_agents_own_port_is_shut(self):
        for values in self.sets():
            for workload in chart.workloads(values):
                if "weir.mesh/agent" not in chart.pod_labels(workload):
                    continue
                for other in chart.workloads(values):
                    self.assertFalse(self.admits(
                        values, chart.pod_labels(other), chart.pod_labels(workload), "agent"))

    def test_internet_only_where_asked_and_never_to_private_networks(self):
        for workload in chart.workloads("everything"):
            labels = chart.pod_labels(workload)
            blocks = [
                peer["ipBlock"]
                for spec in self.policies("everything", labels) for rule in spec["egress"]
                for peer in rule.get("to", []) if "ipBlock" in peer]
            wide = [block for block in blocks if block["cidr"] == "0.0.0.0/0"]
            self.assertEqual(bool(wide), labels.get("weir.mesh/agent") == "own-agent")
            for block in wide:
                self.assertIn("169.254.0.0/16", block["except"])

    def test_a_service_elsewhere_can_be_reached(self):
        """An agent that is no container of the pod, and a sidecar that is not discovered."""
        for agent, port in (("elsewhere", 8000), (None, 8001)):
            labels = next(
                labels for one in chart.workloads("everything")
                if (labels := chart.pod_labels(one)).get("weir.mesh/agent") == agent
                and labels.get("weir.mesh/member"))
            self.assertTrue(self.admits("everything", labels, {}, port, "egress"))

    def test_only_the_ingress_controller_where_named(self):
        self.assertFalse(self.admits(
            "everything", {"app": "stranger"},
            {"app.kubernetes.io/name": "weir", "app.kubernetes.io/component": "gateway",
             "app.kubernetes.io/instance": "agent-orchestration"}, "http"))


class Agents(unittest.TestCase):
    @everywhere
    def test_each_has_its_sidecar_written_out(self, values):
        found = 0
        for workload in chart.workloads(values):
            agent = chart.pod_labels(workload).get("weir.mesh/agent")
            if not agent:
                continue
            found += 1
            names = [container["name"] for container in chart.pod(workload)["containers"]]
            self.assertIn(names, (["agent", "weir-sidecar"], ["weir-sidecar"]))
            sidecar = chart.pod(workload)["containers"][-1]
            self.assertIn(f"--agent={agent}", sidecar["args"])
            self.assertIn("--mesh-plaintext=network", sidecar["args"])
            ports = {port["name"]: port["containerPort"] for port in sidecar["ports"]}
            self.assertEqual(ports["inbound"], SIDECAR_PORT)
            advertise = next(e for e in sidecar["env"] if e["name"] == "WEIR_ADVERTISE")
            self.assertTrue(advertise["value"].endswith(f":{SIDECAR_PORT}"))
            if len(names) == 2:
                own = chart.pod(workload)["containers"][0]["ports"][0]["containerPort"]
                self.assertIn(f"--upstream=http://127.0.0.1:{own}", sidecar["args"])
        self.assertGreater(found, 0)

    @everywhere
    def test_the_agent_outlives_its_sidecar_and_both_their_drain(self, values):
        for workload in chart.workloads(values):
            pod = chart.pod(workload)
            for container in pod["containers"]:
                drain = [a for a in container.get("args", []) if a.startswith("--drain=")]
                if not drain:
                    continue
                seconds = int(drain[0].removeprefix("--drain="))
                wait = sleep_of(container)
                self.assertGreaterEqual(pod["terminationGracePeriodSeconds"], wait + seconds + 15)
                if pod["containers"][0]["name"] == "agent":
                    agent = sleep_of(pod["containers"][0])
                    self.assertGreater(agent, seconds)
                    self.assertLess(agent, pod["terminationGracePeriodSeconds"])

    def test_ipv6(self):
        for workload in chart.workloads("ipv6"):
            for container in chart.pod(workload)["containers"]:
                for argument in container.get("args", []):
                    self.assertNotIn("0.0.0.0", argument)

    def test_the_gpu_goes_to_the_agent(self):
        workload = next(
            one for one in chart.workloads("production")
            if chart.pod_labels(one).get("weir.mesh/agent") == "llama2-7b")
        agent, sidecar = chart.pod(workload)["containers"]
        self.assertEqual(agent["resources"]["limits"]["nvidia.com/gpu"], 1)
        self.assertNotIn("nvidia.com/gpu", sidecar["resources"]["limits"])
        self.assertIn("nvidia.com/gpu.present", chart.pod(workload)["nodeSelector"])

    def test_another_policy_is_another_job(self):
        def job(*settings):
            result = chart.template([part for one in settings for part in ("--set", one)])
            return next(
                one["metadata"]["name"] for one in yaml.safe_load_all(result.stdout)
                if one and one["kind"] == "Job")

        self.assertEqual(job(), job("gateway.replicas=3"))
        self.assertNotEqual(job(), job("policy.documents.a\\.yaml=kind: X"))
        self.assertNotEqual(job(), job("image.tag=other"))


def sleep_of(container):
    action = container.get("lifecycle", {}).get("preStop", {})
    if "sleep" in action:
        return action["sleep"]["seconds"]
    return int(action["exec"]["command"][1]) if "exec" in action else 0


class Notes(unittest.TestCase):
    def test_say_that_the_mesh_is_not_encrypted(self):
        for values, arguments in chart.VALUE_SETS.items():
            with self.subTest(values=values):
                notes = chart.helm(
                    "install", "x", str(chart.CHART), "--dry-run=client", *arguments)
                self.assertEqual(notes.returncode, 0, notes.stderr)
                self.assertIn("THE MESH IS NOT ENCRYPTED", notes.stdout)


if __name__ == "__main__":
    unittest.main()
