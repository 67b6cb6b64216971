"""Reads the books: the agents', the archive's records, and what `weir cost reconcile` says."""

import json
import subprocess
import urllib.request

from . import documents, plan
from .checks import Account, Books, Record, Work
from .mesh import ARCHIVE, LISTEN, REDIS, Mesh, agent_of
from .process import Trouble

# Generous: a machine may be slow, and what does not come in time is a failure.
ASK_SECONDS_MAX = 60
COLUMNS = "agent, subject, request, cost, reserved, input_tokens, output_tokens, source, flags"


def sums(mesh: Mesh) -> dict[str, int]:
    """What each user's requests were worth to the agents, so far."""
    total: dict[str, int] = {}
    for node in plan.SIDECARS:
        for user, amount in _agent(mesh, node, "sums").items():
            total[user] = total.get(user, 0) + amount
    return total


def books(mesh: Mesh) -> Books:
    # The agents' first: what comes in between is in the records, too, and not the other way round.
    work = [
        Work(agent_of(node), *entry)
        for node in plan.SIDECARS
        for entry in _agent(mesh, node, "books")
    ]
    return Books(work, records(mesh), accounts(mesh))


def _agent(mesh: Mesh, node: str, what: str) -> dict | list:
    url = f"http://{mesh.agent_address(node)}/{what}"
    with urllib.request.urlopen(url, timeout=ASK_SECONDS_MAX) as answer:
        return json.load(answer)


def records(mesh: Mesh) -> list[Record]:
    found = []
    for line in sql(mesh, f"SELECT {COLUMNS} FROM records").splitlines():
        agent, user, request, cost, reserved, used, written, source, flags = line.split("|")
        numbers = (int(cost), int(reserved), int(used), int(written))
        found.append(Record(agent, user, f"req_{request}", *numbers, source, int(flags)))
    return found


def sql(mesh: Mesh, statement: str) -> str:
    command = ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "weir"]
    command += ["-h", mesh.network.address("archive"), "-p", str(ARCHIVE), "-d", "postgres"]
    done = subprocess.run(
        [*command, "-c", statement], capture_output=True, text=True, timeout=ASK_SECONDS_MAX
    )
    if done.returncode != 0:
        raise Trouble(f"psql: {done.stderr}")
    return done.stdout


def redis(mesh: Mesh, *command: str) -> str:
    start = ["redis-cli", "-h", mesh.network.address("redis"), "-p", str(REDIS)]
    done = subprocess.run(
        [*start, *command], capture_output=True, text=True, timeout=ASK_SECONDS_MAX
    )
    if done.returncode != 0:
        raise Trouble(f"redis-cli: {done.stderr}")
    return done.stdout


def accounts(mesh: Mesh) -> dict[tuple[str, str], Account]:
    done = mesh.weir("cost", "reconcile", "--wait", "0", "--all", "-o", "json")
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        raise Trouble(f"weir cost reconcile: {done.stdout}{done.stderr}") from None
    if answer["accounts_differing"] and not any(
        account["state"] == "differs" for account in answer["accounts"]
    ):
        raise Trouble(f"accounts that differ are not shown: {answer}")
    found = {}
    for account in answer["accounts"]:
        _, scope, _, name = account["account"].split("/", 3)
        amounts = [
            documents.nano(account[f"{what}_usd"]) for what in ("consumed", "recorded", "held")
        ]
        why = json.dumps(account.get("causes") or account.get("obstacle") or "")
        found[scope, name] = Account(account["state"], *amounts, why)
    return found


def evidence(mesh: Mesh) -> str:
    """What the mesh says of itself, for whoever looks into a failure; as much of it as there is."""
    questions = [(mesh.weir, ("get", "sidecars", "-o", "json"))]
    questions += [(health, (mesh, gateway)) for gateway in plan.GATEWAYS]
    questions += [(mesh.weir, ("cost", "reconcile", "--wait", "0", "--all"))]
    questions += [
        (redis, (mesh, "HGETALL", f"weir:{{mesh}}:{key}")) for key in ("hearing", "epoch")
    ]
    found = []
    for question, arguments in questions:
        try:
            answer = question(*arguments)
            text = answer if isinstance(answer, str) else answer.stdout + answer.stderr
        except (OSError, Trouble, subprocess.SubprocessError) as problem:
            text = f"{problem}"
        words = [word for word in arguments if isinstance(word, str)]
        found.append(f"--- {' '.join(words)}\n{text}")
    return "\n".join(found)


def health(mesh: Mesh, gateway: str) -> str:
    request = urllib.request.Request(f"http://{mesh.address(gateway, LISTEN)}/agents/health")
    request.add_header("Authorization", f"Bearer {mesh.token(documents.USERS[0])}")
    with urllib.request.urlopen(request, timeout=ASK_SECONDS_MAX) as answer:
        return answer.read().decode()
