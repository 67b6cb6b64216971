"""The comparison of budgets: requests, judgement of refusals, arithmetic and section."""

import asyncio
import dataclasses
import json
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from harness import sections  # noqa: E402
from harness.budgets import client, figures, mesh, phases, section, workload  # noqa: E402
from harness.budgets.client import Account, Answer, Client, Notes, Served, Strange  # noqa: E402
from harness.budgets.phases import Outcome, Round, Spending  # noqa: E402
from harness.budgets.products import Product, Tier  # noqa: E402
from harness.stage import Stage  # noqa: E402

UPSTREAM = pathlib.Path(phases.__file__).parent / "upstream.py"
EXPOSITION = """# TYPE weir_uplink_messages_total counter
weir_uplink_messages_total{message="leases",outcome="answered"} 12
weir_uplink_messages_total{message="leases",outcome="failed"} 1
weir_uplink_messages_total{message="subject",outcome="answered"} 3
weir_uplink_messages_total{message="report",outcome="answered"} 99
"""


def notes(milliseconds: list[float], refused: dict[int, int] | None = None, **fields) -> Notes:
    served = [Served(one / 1000, one / 2000, stream=True) for one in milliseconds]
    return Notes(served, refused or {}, **fields)


def round_of(milliseconds: float, exchanges: int | None) -> Round:
    cpu = {"Redis": 50_000_000, "gateways": round(milliseconds * 1e6 * 10)}
    return Round(notes([1.0] * 10), cpu, exchanges)


def outcome(product: str, milliseconds: float, share: float = 1.0, **fields) -> Outcome:
    spent = {"one-0": round(share * 1_000)}
    spending = Spending(1_000, 10, notes([2.0], {402: 3}), spent, 4)
    rounds = [round_of(milliseconds, 0), round_of(milliseconds, 1)]
    return dataclasses.replace(
        Outcome(product, spending, spending, notes([5.0, 9.0]), round_of(1, 0), rounds), **fields
    )


class Requests(unittest.TestCase):
    def test_the_same_twice_and_different_for_everybody(self) -> None:
        bodies = [workload.request(user, at, 20).body() for user in "ab" for at in range(100)]
        again = [workload.request(user, at, 20).body() for user in "ab" for at in range(100)]
        self.assertEqual(bodies, again)
        self.assertEqual(len(set(bodies)), 200)

    def test_worst_case_to_actual_is_ten_to_one(self) -> None:
        requests = [workload.request("u", at, 0) for at in range(300)]
        ratio = sum(one.worst for one in requests) / sum(one.size.actual for one in requests)
        self.assertAlmostEqual(ratio, 10, delta=0.5)
        self.assertGreater(min(one.worst / one.size.actual for one in requests), 9)

    def test_there_are_streams_of_every_size(self) -> None:
        streams = {one.size for at in range(30) if (one := workload.request("u", at, 0)).stream}
        self.assertEqual(streams, set(workload.ORDER))

    def test_small_ones_go_on_until_four_in_a_row_are_refused(self) -> None:
        account = Account(round(workload.mean_actual() * 10))
        asked = phases.demand("u", account)
        mixed = [next(asked) for _ in range(10)]
        self.assertEqual([one.size for one in mixed], list(workload.ORDER))
        account.refused_in_row = 9
        self.assertEqual(next(asked).size, workload.SMALL)
        self.assertEqual(account.refused_in_row, 0)
        account.refused_in_row = 3
        self.assertEqual(next(asked).number, 11)
        account.refused_in_row = 4
        self.assertEqual(list(asked), [])


class Judging(unittest.TestCase):
    """Whether a refusal was right."""

    def judged(self, account: Account, worst: int, number: int = 9) -> tuple[int, int]:
        record = Notes()
        asking = Client(1, "", account, record)
        peak = account.end(number, worst, 0)
        asking._refused(worst, 402, peak)
        return record.fitted, record.unspent

    def test_it_fitted(self) -> None:
        account = Account(100, spent=40)
        account.begin(9, 60)
        self.assertEqual(self.judged(account, 60), (1, 1))

    def test_what_is_in_flight_may_be_in_the_way(self) -> None:
        account = Account(100, spent=40)
        account.begin(1, 10)
        account.begin(9, 60)
        account.end(1, 10, 0)
        # It fitted only at the end.
        self.assertEqual(self.judged(account, 60), (0, 1))

    def test_what_came_later_may_be_in_the_way(self) -> None:
        account = Account(100, spent=40)
        account.begin(9, 60)
        account.begin(10, 1)
        account.end(10, 1, 1)
        self.assertEqual(self.judged(account, 60), (0, 0))

    def test_retry_after_unless_it_is_forbidden(self) -> None:
        def answer(**fields: bytes) -> Answer:
            named = {name.replace("_", "-").encode(): value for name, value in fields.items()}
            return Answer(503, named, b"", 0, 0)

        self.assertIsNone(client.retry_after(answer()))
        self.assertEqual(client.retry_after(answer(retry_after=b"1")), 1)
        self.assertEqual(client.retry_after(answer(retry_after=b"60")), 2)
        self.assertIsNone(client.retry_after(answer(retry_after=b"1", x_should_retry=b"false")))

    def test_only_money_is_a_refusal(self) -> None:
        self.assertTrue(client.is_refusal(Answer(402, {}, b"", 0, 0)))
        self.assertTrue(client.is_refusal(Answer(422, {}, b'{"type":"budget_exceeded"}', 0, 0)))
        self.assertFalse(client.is_refusal(Answer(422, {}, b'{"type":"invalid"}', 0, 0)))
        self.assertFalse(client.is_refusal(Answer(500, {}, b"", 0, 0)))


class Unlimited(Product):
    """The upstream itself: it has no budgets at all."""

    def token(self, user: str, tier: Tier) -> str:
        return user


class Running(unittest.TestCase):
    """A real upstream, and clients over real connections."""

    def run_with(self, work) -> object:
        with Stage() as stage:
            port = stage.port()
            command = [sys.executable, str(UPSTREAM), str(port)]
            process = stage.start("upstream", command, stage.load_core, port=port)
            product = Unlimited("nobody", stage, [port, port], {"upstream": [process]})
            return asyncio.run(work(product, port))

    def test_who_has_no_limit_is_seen_to_overspend(self) -> None:
        tier = Tier("one", 10_000_000)

        async def work(product: Product, port: int) -> Spending:
            capped = phases.LAST_REQUESTS_MAX
            phases.LAST_REQUESTS_MAX = 20
            try:
                return await phases.spending(product, port, tier, 2, 2)
            finally:
                phases.LAST_REQUESTS_MAX = capped

        found = self.run_with(work)
        self.assertEqual(found.notes.refusals, 0)
        mixed = round(tier.budget / workload.mean_actual())
        expected = sum(workload.request("one-0", at, 0).size.actual for at in range(mixed))
        expected += 20 * workload.SMALL.actual
        self.assertEqual(found.spent, {"one-0": expected, "one-1": expected})
        self.assertGreater(min(found.shares), 1)

    def test_time_and_bytes_of_known_users(self) -> None:
        plan = dataclasses.replace(phases.SHORT, strangers=4)

        async def work(product: Product, port: int) -> tuple[Notes, Round]:
            await phases.plenty(product, plan, 8)
            seen = await phases.watched(product, phases.plenty(product, plan, 30))
            return await phases.one_each(product, plan, 0), seen

        strangers, seen = self.run_with(work)
        self.assertEqual(len(strangers.served), 4)
        self.assertEqual(len(seen.notes.served), 30)
        self.assertEqual(sum(one.stream for one in seen.notes.served), 10)
        self.assertGreater(seen.cpu["upstream"], 0)
        for one in seen.notes.served:
            self.assertLessEqual(one.first_byte_seconds, one.seconds)

    def test_an_answer_that_is_none_ends_the_run(self) -> None:
        async def work(product: Product, port: int) -> None:
            asking = Client(port, "u", Account(1), Notes())
            with self.assertRaises(Strange):
                client.check(workload.request("u", 0, 0), Answer(200, {}, b"{}", 0, 0))
            asking._start = asking._start.replace(workload.PATH, "/elsewhere")
            with self.assertRaises(Strange):
                await asking.one(workload.request("u", 0, 0))
            asking.close()

        self.run_with(work)


class Reckoning(unittest.TestCase):
    def test_percentiles(self) -> None:
        self.assertEqual(figures.percentile([3, 1, 2], 0.5), 2)
        self.assertEqual(figures.percentile(list(range(1, 101)), 0.99), 99)
        self.assertEqual(figures.percentile([7], 0.99), 7)

    def test_usable_is_what_the_smallest_request_leaves(self) -> None:
        found = Spending(1_000, 10, Notes(), {"a": 990, "b": 495, "c": 1_001}, None)
        self.assertEqual(found.usable, [1.0, 0.5, 1.0])
        self.assertEqual(found.shares, [0.99, 0.495, 1.001])

    def test_messages_that_admit(self) -> None:
        self.assertEqual(mesh.admitting_messages(EXPOSITION), 16)

    def test_targets(self) -> None:
        made = figures.verdicts(outcome("Weir", 1), outcome("LiteLLM", 60))
        missed = [one.target for one in made if one.met is not True]
        # One exchange for twenty requests is too many.
        self.assertEqual(missed, ["without an exchange, users who stay"])

    def test_targets_that_are_missed(self) -> None:
        bad = outcome("Weir", 1, 1.001, cold=notes([5.0, 11.0]), returning=round_of(1, 10))
        bad.one.notes.fitted = 1
        met = [one.met for one in figures.verdicts(bad, outcome("LiteLLM", 40))]
        self.assertEqual(met, [False, True, False, False, False, False, False])
        self.assertFalse(figures.verdicts(outcome("Weir", 1, 0.9), None)[1].met)
        self.assertIsNone(figures.verdicts(bad, None)[-1].met)

    def test_cpu_is_without_the_store(self) -> None:
        self.assertEqual(figures.cpu_milliseconds(round_of(3, None)), 3)
        ratio = figures.cpu_ratio(outcome("Weir", 0.5), outcome("LiteLLM", 25))
        self.assertEqual(ratio.text(0), "50 (50–50)")


class Writing(unittest.TestCase):
    def results(self) -> section.Results:
        made = section.Results(
            "Benchmarks/budgets",
            "2026-11-23",
            ["2 cores"],
            {"Weir": "abc", "LiteLLM": "1"},
            dataclasses.asdict(phases.FULL),
            [outcome("Weir", 1), outcome("LiteLLM", 60)],
            outcome("x", 1, 1.2).one,
            {"somebody": "is not\nthere"},
            1.0,
        )
        return made

    def test_figures_survive_their_file(self) -> None:
        made = self.results()
        read = section.Results.from_json(json.loads(json.dumps(made.as_json())))
        self.assertEqual(read, made)
        self.assertEqual(section.text(read), section.text(made))

    def test_everybody_and_what_is_missing_is_in_the_text(self) -> None:
        text = section.text(self.results())
        for part in (
            "| LiteLLM's CPU time ÷ Weir's | at least 50 | 60 (60–60) | met |",
            "| LiteLLM, not strict | 1 | 1.2000 |",
            "| Weir | users who stay, four clients | 1.0 ms | 1.0 ms | 20 | 1 |",
            "somebody was not measured**: is not there",
            "One user has $0.5",
        ):
            self.assertIn(part, text)

    def test_each_author_leaves_the_other_section_alone(self) -> None:
        first = sections.replaced("# Benchmarks\n\ntables\n", sections.BUDGETS, "one")
        second = sections.replaced(first, sections.BUDGETS, "two\n")
        self.assertEqual(second, first.replace("one", "two"))
        new = sections.kept(second, "# Benchmarks\n\nothers\n")
        self.assertEqual(new, second.replace("tables", "others"))
        self.assertEqual(sections.kept("# Benchmarks\n", "new\n"), "new\n")
        self.assertEqual(sections.kept(new, new.split("<!--")[0]), new)


if __name__ == "__main__":
    unittest.main()
