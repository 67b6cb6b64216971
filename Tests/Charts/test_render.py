"""What helm, the schemas of Kubernetes and the linters say of the chart."""

import pathlib
import subprocess
import sys
import tempfile
import unittest

import chart
import yaml
from cloudcoil.models.prometheus_operator.v1 import PodMonitor, PrometheusRule

CUSTOM = {"PodMonitor": PodMonitor, "PrometheusRule": PrometheusRule}
BIN = pathlib.Path(sys.prefix) / "bin"

# Each with the reason why the chart does otherwise.
CHECKOV_SKIPPED = {
    "CKV_K8S_11": "CPU limits throttle a proxy in mid-request; requests reserve what it needs",
    "CKV_K8S_15": "values.image.pullPolicy: tags are pinned, and Always needs the registry to live",
    "CKV_K8S_21": "the namespace is helm's --namespace",
    "CKV_K8S_35": "REDIS_URL comes from a Secret by variable: the program has no file form of it",
    "CKV_K8S_43": "digests belong to who built the images; values.image.tag takes one",
}


class Rendering(unittest.TestCase):
    def test_lint(self):
        for values, arguments in chart.VALUE_SETS.items():
            with self.subTest(values=values):
                result = chart.helm("lint", "--strict", str(chart.CHART), *arguments)
                self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    def test_package_contains_policy_rules_and_dashboards(self):
        with tempfile.TemporaryDirectory() as folder:
            result = chart.helm("package", str(chart.CHART), "--destination", folder)
            self.assertEqual(result.returncode, 0, result.stderr)
            archive = next(pathlib.Path(folder).glob("*.tgz"))
            names = subprocess.run(
                ["tar", "tzf", archive], text=True, capture_output=True, check=True).stdout
        for wanted in ("policy/agents.yaml", "rules/weir.yaml", "dashboards/", "values.schema.json"):
            self.assertIn("weir/" + wanted, names)
        self.assertNotIn("weir/ci/", names)

    def test_kubernetes_schemas(self):
        for version in chart.VERSIONS:
            with self.subTest(kubernetes=version):
                objects = [
                    one for values in chart.VALUE_SETS for one in chart.objects(values, version)]
                self.validate(objects, version)

    def validate(self, objects, version):
        known = [one for one in objects if one["kind"] not in CUSTOM]
        self.assertGreater(len(known), 10)
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump_all(known, file)
            file.flush()
            result = chart.run(
                str(BIN / "kubernetes-validate"), "--strict", "-k", version, file.name)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assertEqual(result.stdout.count(" passed "), len(known), result.stdout)

    def test_the_schemas_refuse_what_is_wrong(self):
        """Otherwise the test above could not fail."""
        deployment = next(
            one for one in chart.objects("default") if one["kind"] == "Deployment")
        wrong = yaml.safe_load(yaml.safe_dump(deployment))
        wrong["spec"]["template"]["spec"]["containers"][0]["comand"] = []
        with self.assertRaises(AssertionError):
            self.validate([wrong] * 11, "1.36.0")

    def test_custom_resources(self):
        """Against models generated from the operator's own definitions."""
        found = [one for one in chart.objects("everything") if one["kind"] in CUSTOM]
        self.assertEqual({one["kind"] for one in found}, set(CUSTOM))
        for one in found:
            model = CUSTOM[one["kind"]].model_validate(one)
            # What the model does not know is dropped by it, so what is left must be everything.
            kept = model.model_dump(by_alias=True, exclude_none=True, mode="json")
            self.assertEqual(dropped(one["spec"], kept["spec"]), [], chart.name(one))

    def test_checkov(self):
        for values in ("default", "everything", "production"):
            with self.subTest(values=values), tempfile.TemporaryDirectory() as folder:
                file = pathlib.Path(folder) / "rendered.yaml"
                file.write_text(chart.text(values))
                result = chart.run(
                    str(BIN / "checkov"), "--framework", "kubernetes", "--skip-download",
                    "--skip-check", ",".join(CHECKOV_SKIPPED), "--compact", "--quiet",
                    "--file", str(file))
                self.assertEqual(result.returncode, 0, result.stdout[-4000:])

    def test_yamllint(self):
        rules = (
            "{extends: default, rules: {line-length: disable, document-start: disable, "
            "braces: {max-spaces-inside: 0}, indentation: {indent-sequences: whatever}, "
            "comments: {min-spaces-from-content: 1}, truthy: {check-keys: false}, "
            "empty-lines: {max: 2, max-end: 1}}}"
        )
        files = [
            path
            for folder in (chart.CHART, chart.ROOT / "manifests")
            for path in folder.rglob("*.yaml")
            if "templates" not in path.parts
        ] + [chart.ROOT / "compose.yaml"]
        with tempfile.TemporaryDirectory() as folder:
            for values in chart.VALUE_SETS:
                path = pathlib.Path(folder) / f"{values}.yaml"
                path.write_text(chart.text(values))
                files.append(path)
            result = chart.run(
                str(BIN / "yamllint"), "--strict", "--format", "parsable", "-d", rules,
                *map(str, files))
        self.assertEqual(result.returncode, 0, result.stdout[-3000:])


def dropped(given, kept, path=""):
    """The paths of what is in `given` and not, or otherwise, in `kept`."""
    if isinstance(given, dict):
        missing = [f"{path}/{key}" for key in given if key not in (kept or {})]
        return missing + [
            found
            for key in given
            if key in (kept or {})
            for found in dropped(given[key], kept[key], f"{path}/{key}")
        ]
    if isinstance(given, list):
        if len(given) != len(kept):
            return [path]
        return [
            found
            for index, (left, right) in enumerate(zip(given, kept))
            for found in dropped(left, right, f"{path}/{index}")
        ]
    return [] if given == kept else [path]


class Values(unittest.TestCase):
    """Wrong values are refused, with their paths."""

    WRONG = [
        ("gateway.replicas=many", "/gateway/replicas"),
        ("gateway.drainSeconds=-1", "/gateway/drainSeconds"),
        ("agents.finbert.sidecar.workers=0", "/agents/finbert/sidecar/workers"),
        ("agents.finbert.sidecars.workers=1", "sidecars"),
        ("agents.FinBERT.replicas=1", "'FinBERT' does not match"),
        ("agents.finbert.upstream=https://api.example.com", "/agents/finbert/upstream"),
        ("agents.finbert.credential=acme", "/agents/finbert/credential"),
        ("agents.finbert.container.securityContext.privileged=true", "privileged"),
        ("database.url=mysql://x", "/database/url"),
        ("database.poolSize=1", "/database/poolSize"),
        ("redis.external.url=http://x", "/redis/external/url"),
        ("secrets.jwtSecretKey=short", "/secrets/jwtSecretKey"),
        ("secrets.redisPassword=with/slash/inside/it", "/secrets/redisPassword"),
        ("mesh.plaintext=yes", "/mesh/plaintext"),
        ("gateway.corsOrigins={ftp://x}", "/gateway/corsOrigins/0"),
        ("image.tag=a b", "/image/tag"),
        ("redis.storage=lots", "/redis/storage"),
        ("bogus=1", "bogus"),
    ]
    # Each right, and wrong together: said by the templates.
    TOGETHER = [
        (["networkPolicy.enabled=false"], "mesh.plaintext"),
        (["controlPlane.replicas=2"], "controlPlane.replicas"),
        (["redis.enabled=false"], "redis:"),
        (["redis.external.url=redis://x:1"], "redis:"),
        (["gateway.ingress.enabled=true"], "gateway.ingress.tlsSecretName"),
        (["gateway.journal.type=persistentVolumeClaim"], "gateway.journal.type"),
        (["agents.risk.journal.type=persistentVolumeClaim", "agents.risk.replicas=2"],
         "agents.risk.journal.type"),
        (["agents.own.replicas=1"], "agents.own.container.image"),
        (["agents.own.container.enabled=false"], "agents.own.upstream"),
        (["secrets.joinToken=0123456789abcdef"], "secrets: admin-token"),
        (["secrets.existingSecret=x", "secrets.generate=true"], "secrets: existingSecret"),
        (["database.url=postgresql://x", "database.existingSecret=x"], "database:"),
    ]

    def test_one_value(self):
        for setting, path in self.WRONG:
            with self.subTest(setting=setting):
                self.refused([setting], path)

    def test_values_together(self):
        for settings, path in self.TOGETHER:
            with self.subTest(settings=settings):
                self.refused(settings, path)

    def test_everything_that_is_wrong_is_said_at_once(self):
        result = chart.template(["--set", "gateway.replicas=x,bogus=1,log.level=loud"])
        for path in ("/gateway/replicas", "bogus", "/log/level"):
            self.assertIn(path, result.stderr)

    def refused(self, settings, path):
        arguments = [part for setting in settings for part in ("--set", setting)]
        result = chart.template(arguments)
        self.assertNotEqual(result.returncode, 0)
        self.assertIn(path, result.stderr)


class SeedsCommand(unittest.TestCase):
    """helm install agent-orchestration … with image.tag, database.url and secrets.openaiKey"""

    def test_each_value_arrives(self):
        import base64

        secrets = {
            one["metadata"]["name"]: one["data"] for one in chart.of_kind("seed", "Secret")}
        database = secrets["agent-orchestration-weir-database"]["database-url"]
        self.assertEqual(base64.b64decode(database), b"postgresql://...")
        key = secrets["agent-orchestration-weir-providers"]["openai-api-key"]
        self.assertEqual(base64.b64decode(key), b"...")
        images = {
            container["image"] for _, container in chart.containers("seed")
            if "redis" not in container["image"]}
        self.assertEqual(
            images, {"weir-sidecar:latest", "weir-control-plane:latest",
                     "weir-sample-agents:latest"})

    def test_only_that_agents_sidecar_has_the_key(self):
        holders = {
            (workload["metadata"]["name"], container["name"])
            for workload, container in chart.containers("seed")
            if any("provider" == mount["name"] for mount in container.get("volumeMounts", []))}
        self.assertEqual(
            holders, {("agent-orchestration-weir-agent-gpt4-turbo", "weir-sidecar")})


class RawManifests(unittest.TestCase):
    def test_are_what_the_chart_renders(self):
        rendered = chart.run(str(chart.ROOT / "scripts" / "render-manifests"), "--print",
                             env={"PATH": "/usr/bin:/bin", "HELM": chart.tool("helm")})
        self.assertEqual(rendered.returncode, 0, rendered.stderr)
        self.assertEqual(
            rendered.stdout, (chart.MANIFESTS / "weir.yaml").read_text(),
            "run scripts/render-manifests")

    def test_kustomize_builds_them(self):
        result = chart.run(chart.tool("kubectl"), "kustomize", str(chart.MANIFESTS))
        self.assertEqual(result.returncode, 0, result.stderr)
        built = [one for one in yaml.safe_load_all(result.stdout) if one]
        raw = yaml.safe_load_all((chart.MANIFESTS / "weir.yaml").read_text())
        # And the namespace, with its label of Pod Security.
        self.assertEqual(len(built), len([one for one in raw if one]) + 1)
        namespace = next(one for one in built if one["kind"] == "Namespace")
        labels = namespace["metadata"]["labels"]
        self.assertEqual(labels["pod-security.kubernetes.io/enforce"], "restricted")


if __name__ == "__main__":
    unittest.main()
