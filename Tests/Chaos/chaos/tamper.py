"""Right books made wrong by the smallest amount there is, in the real stores, and set right again:
a check that agrees with these says nothing when it agrees."""

from . import audit, checks
from .load import Answer
from .mesh import Mesh
from .process import Trouble

ROW = "ctid = (SELECT ctid FROM records WHERE cost > 0 ORDER BY incarnation, sequence LIMIT 1)"
RECORDS = {
    "a record is a billionth dearer": (
        f"UPDATE records SET cost = cost + 1 WHERE {ROW}",
        f"UPDATE records SET cost = cost - 1 WHERE {ROW}",
    ),
    "a record is there twice": (
        f"CREATE TEMP TABLE again AS SELECT * FROM records WHERE {ROW};"
        "UPDATE again SET sequence = -1; INSERT INTO records SELECT * FROM again",
        "DELETE FROM records WHERE sequence = -1",
    ),
    "a record is gone": (
        f"CREATE TABLE kept AS SELECT * FROM records WHERE {ROW}; DELETE FROM records WHERE {ROW}",
        "INSERT INTO records SELECT * FROM kept; DROP TABLE kept",
    ),
}


def check(mesh: Mesh, answers: list[Answer]) -> int:
    """How many were tried; all were found, and the books are right as before."""
    for what, (plant, undo) in RECORDS.items():
        audit.sql(mesh, plant)
        _must_be_found(mesh, answers, what)
        audit.sql(mesh, undo)
    found = audit.redis(mesh, "--scan", "--pattern", "weir:{usd/user/*}:2???-??").split()
    if not found:
        raise Trouble("there is no account of a user in Redis")
    audit.redis(mesh, "HINCRBY", found[0], "consumed", "1")
    _must_be_found(mesh, answers, f"{found[0]} has consumed a billionth more")
    audit.redis(mesh, "HINCRBY", found[0], "consumed", "-1")
    if problems := checks.books(audit.books(mesh), answers):
        raise Trouble("after the test of the checks:\n" + "\n".join(problems))
    return len(RECORDS) + 1


def _must_be_found(mesh: Mesh, answers: list[Answer], what: str) -> None:
    if not checks.books(audit.books(mesh), answers):
        raise Trouble(f"nobody saw this: {what}")
