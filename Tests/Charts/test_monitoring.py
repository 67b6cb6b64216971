"""Dashboards and alerts: every query is parsed, and its names are compared with what the demo
exposes (WEIR_METRICS: a folder that scripts/demo --save-metrics wrote)."""

import json
import os
import pathlib
import re
import unittest

import chart
import promql_parser as promql
import yaml
from grafana_foundation_sdk.models.dashboard import Dashboard

RULES = chart.CHART / "rules" / "weir.yaml"
DASHBOARDS = sorted((chart.CHART / "dashboards").glob("*.json"))
TROUBLESHOOTING = chart.ROOT / "docs" / "troubleshooting.md"
# What Prometheus adds to every series that it scrapes.
TARGET_LABELS = {"instance", "job", "pod", "namespace"}
# The seed's: agent performance, cost by tier, system health, request volume and latency.
VIEWS = {"agents.json", "costs.json", "health.json", "requests.json"}


def exposition():
    """Name of each series that the demo exposed, to its labels."""
    folder = pathlib.Path(os.environ["WEIR_METRICS"])
    found = {}
    for file in folder.glob("*.txt"):
        for line in file.read_text().splitlines():
            if line.startswith("#") or not line:
                continue
            name, labels = re.match(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? ", line).groups()
            names = re.findall(r'(\w+)="(?:[^"\\]|\\.)*"', labels or "")
            found.setdefault(name, set()).update(names)
    return found


def panels():
    for file in DASHBOARDS:
        for panel in json.loads(file.read_text())["panels"]:
            yield f"{file.name}: {panel['title']}", panel


def queries():
    """(where, query) of every panel and rule, with Grafana's variables put in."""
    for where, panel in panels():
        for target in panel["targets"]:
            text = target["expr"].replace("$__rate_interval", "5m").replace("$__range", "6h")
            yield where, re.sub(r"\$\w+", ".*", text)
    for rule in rules():
        yield rule["alert"], rule["expr"]


def rules():
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def check(query, exposed):
    """What a query names that nobody exposes."""
    problems = []

    def labels_of(node):
        """Walks the tree; the labels that its result can have."""
        if isinstance(node, promql.VectorSelector):
            if node.name not in exposed:
                problems.append(f"no metric {node.name}")
                return set()
            labels = exposed[node.name] | TARGET_LABELS
            for matcher in node.matchers.matchers:
                if matcher.name not in labels:
                    problems.append(f"{node.name} has no label {matcher.name}")
            return labels
        if isinstance(node, promql.MatrixSelector):
            return labels_of(node.vector_selector)
        if isinstance(node, promql.AggregateExpr):
            inner = labels_of(node.expr)
            wanted = set(node.modifier.labels) if node.modifier else set()
            problems.extend(f"no label {label} to group by" for label in wanted - inner)
            return wanted
        if isinstance(node, promql.Call):
            return set().union(*(labels_of(argument) for argument in node.args))
        if isinstance(node, promql.BinaryExpr):
            return labels_of(node.lhs) | labels_of(node.rhs)
        if isinstance(node, (promql.ParenExpr, promql.UnaryExpr, promql.SubqueryExpr)):
            return labels_of(node.expr)
        if isinstance(node, (promql.NumberLiteral, promql.StringLiteral)):
            return set()
        raise AssertionError(f"unknown part of a query: {type(node)}")

    try:
        labels_of(promql.parse(query))
    except ValueError as error:
        problems.append(f"is no query: {error}")
    return problems


@unittest.skipUnless("WEIR_METRICS" in os.environ, "WEIR_METRICS names no folder")
class Queries(unittest.TestCase):
    def test_everything_named_is_exposed(self):
        exposed = exposition()
        found = list(queries())
        self.assertGreater(len(found), 40)
        for where, query in found:
            with self.subTest(where=where):
                self.assertEqual(check(query, exposed), [], query)

    def test_variables_are_filled_from_what_is_exposed(self):
        exposed = exposition()
        for file in DASHBOARDS:
            for variable in json.loads(file.read_text())["templating"]["list"]:
                if variable["type"] == "datasource":
                    continue
                metric, label = re.fullmatch(
                    r"label_values\((\w+), (\w+)\)", variable["query"]["query"]).groups()
                self.assertIn(label, exposed[metric], file.name)

    def test_the_seeds_metrics_are_exposed_and_shown(self):
        exposed = exposition()
        everything = " ".join(query for _, query in queries())
        for name in (
                "orchestrator_requests_total", "orchestrator_request_duration_seconds_bucket",
                "agent_invocations_total", "cost_usd_total", "circuit_breaker_state",
                "system_health_score"):
            self.assertIn(name, exposed)
            self.assertIn(name, everything)

    def test_what_is_wrong_is_found(self):
        """Otherwise the tests above could not fail."""
        exposed = {"a_total": {"x"}, "a_bucket": {"x", "le"}}
        for query, problem in (
                ("rate(b_total[5m])", "no metric b_total"),
                ('a_total{y="1"}', "a_total has no label y"),
                ("sum by (y) (rate(a_total[5m]))", "no label y to group by"),
                ("sum by (x) (sum(a_total))", "no label x to group by"),
                ("sum by (x (a_total)", "is no query")):
            found = check(query, exposed)
            self.assertTrue(found and found[0].startswith(problem), (query, found))
        fine = "histogram_quantile(0.9, sum by (x, le) (rate(a_bucket[5m]))) > 1"
        self.assertEqual(check(fine, exposed), [])


class Dashboards(unittest.TestCase):
    def test_the_four_views(self):
        self.assertEqual({file.name for file in DASHBOARDS}, VIEWS)
        documents = [json.loads(file.read_text()) for file in DASHBOARDS]
        self.assertEqual(len({one["uid"] for one in documents}), len(documents))

    def test_grafanas_own_models_read_them(self):
        for file in DASHBOARDS:
            with self.subTest(file=file.name):
                given = json.loads(file.read_text())
                read = Dashboard.from_json(given).to_json()
                self.assertEqual(read["title"], given["title"])
                self.assertEqual(len(read["panels"]), len(given["panels"]))
                self.assertEqual(set(given) - set(read), set())

    def test_panels_do_not_overlap(self):
        for file in DASHBOARDS:
            taken = {}
            for panel in json.loads(file.read_text())["panels"]:
                place = panel["gridPos"]
                self.assertLessEqual(place["x"] + place["w"], 24)
                for x in range(place["x"], place["x"] + place["w"]):
                    for y in range(place["y"], place["y"] + place["h"]):
                        self.assertNotIn((x, y), taken, f"{file.name}: {panel['title']}")
                        taken[x, y] = panel["title"]

    def test_no_user_is_ever_a_label(self):
        for where, query in queries():
            self.assertNotRegex(query, r"\b(user|subject|tenant)\b", where)


class Alerts(unittest.TestCase):
    def test_promtool(self):
        for command in (["check", "rules", str(RULES)],
                        ["test", "rules", str(chart.ROOT / "Tests/Charts/rules_test.yaml")]):
            result = chart.run("promtool", *command)
            self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    def test_each_fires_and_does_not_fire(self):
        tests = yaml.safe_load((chart.ROOT / "Tests/Charts/rules_test.yaml").read_text())["tests"]
        fires, silent = set(), set()
        for test in tests:
            for case in test["alert_rule_test"]:
                (fires if case["exp_alerts"] else silent).add(case["alertname"])
        names = {rule["alert"] for rule in rules()}
        self.assertEqual(fires, names)
        self.assertEqual(silent, names)

    def test_each_is_explained(self):
        for rule in rules():
            annotations = rule["annotations"]
            self.assertEqual(set(annotations), {"summary", "description", "runbook_url"})
            file, anchor = annotations["runbook_url"].split("#")
            self.assertEqual(chart.ROOT / file, TROUBLESHOOTING)
            self.assertIn(anchor, anchors(), rule["alert"])
            self.assertIn(rule["labels"]["severity"], {"info", "warning", "critical"})

    def test_the_journals_limit_is_three_quarters_of_the_smallest_volume(self):
        values = yaml.safe_load((chart.CHART / "values.yaml").read_text())
        smallest = min(
            int(one["journal"]["size"].removesuffix("Gi")) << 30
            for one in (values["gateway"], values["agentDefaults"]))
        rule = next(one for one in rules() if one["alert"] == "WeirJournalNearlyFull")
        self.assertEqual(rule["expr"], f"weir_journal_bytes > {smallest * 3 // 4}")


def anchors():
    """Of the headings, as GitHub and others make them."""
    titles = re.findall(r"^#+ (.*)$", TROUBLESHOOTING.read_text(), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


if __name__ == "__main__":
    unittest.main()
