"""The plan is the same for a seed and has every kind; and each check is shown books that are wrong
in the one way that it is there for."""

import dataclasses
import unittest

from chaos import checks, clock, documents, plan
from chaos.checks import Account, Books, Record, Work
from chaos.load import ANALYSIS, CHAT, NO_ANSWER, Answer, Request

SEEDS = range(300)
USER = documents.USERS[0]
BUDGET = documents.BUDGETS[0]


class Plans(unittest.TestCase):
    def every(self):
        for seed in SEEDS:
            for pace in (plan.SHORT, plan.LONG):
                for has_network in (True, False):
                    faults = plan.schedule(seed, pace, has_network=has_network)
                    yield pace, has_network, faults

    def test_a_seed_replays(self):
        for pace in (plan.SHORT, plan.LONG):
            one, again = (plan.schedule(7, pace, has_network=True) for _ in range(2))
            self.assertEqual(one, again)
            self.assertNotEqual(one, plan.schedule(8, pace, has_network=True))

    def test_every_kind_comes(self):
        for pace, has_network, faults in self.every():
            known = plan.kinds(has_network=has_network, is_long=pace.is_long)
            self.assertEqual(plan.never([fault.kind for fault in faults], known), [])

    def test_nobody_has_two_faults_at_once(self):
        for _, _, faults in self.every():
            until: dict[str, float] = {}
            for fault in faults:
                for target in fault.targets:
                    self.assertLess(until.get(target, 0), fault.at, fault)
                    until[target] = fault.ends

    def test_what_lasts_outlasts_a_lease_and_the_rest_does_not(self):
        for _, _, faults in self.every():
            for fault in faults:
                is_long = fault.action is plan.Action.STOP_LONG
                self.assertEqual(fault.seconds > plan.LEASE_SECONDS, is_long, fault)
                if fault.action is plan.Action.SLEEP:
                    self.assertGreater(fault.jump, plan.LEASE_SECONDS)

    def test_without_a_network_nothing_is_cut(self):
        for _, has_network, faults in self.every():
            cuts = {plan.Action.PARTITION, plan.Action.UNPLUG}
            self.assertEqual(any(fault.action in cuts for fault in faults), has_network)

    def test_a_kind_that_never_came_is_named(self):
        known = plan.kinds(has_network=True, is_long=False)
        self.assertEqual(plan.never([kind.name for kind in known[1:]], known), [known[0].name])

    def test_no_clock_leaves_the_day(self):
        for now in (0, 1_700_000_000, 1_764_547_199, 1_764_547_200):
            noon = now + clock.to_the_middle_of_the_month(now)
            self.assertEqual(noon % 86_400, 43_200)
            # What Redis' clock and everybody else's can be apart, and how long a run can be.
            steps = [abs(fault.jump) for _, _, faults in self.every() for fault in faults]
            self.assertLess(2 * max(steps) + 3_600, 43_200)


def request(kind=CHAT):
    return Request(USER, "1", kind, 1, 20, 0)


def right() -> tuple[Books, list[Answer]]:
    """Three requests: served, served by a stream that broke off, and one that only was reserved."""
    exact = Work("alpha", USER.name, "1", 10, 20)
    broken = Work("beta", USER.name, "2", 5, 7)
    top = 1_000_000
    records = [
        Record("alpha", USER.name, "req_1", exact.cost, top, 10, 20, "reported", 0),
        Record("beta", USER.name, "req_2", top, top, 0, 0, "ceiling", 0),
        Record("beta", USER.name, "req_3", top, top, 0, 0, "ceiling", checks.FLAG_CRASHED),
    ]
    spent = sum(record.cost for record in records)
    accounts = {
        (budget.scope, budget.id): Account("agrees", spent, spent, 0)
        for budget in documents.payers(USER)
    }
    answers = [Answer(request(), 200, id="req_1", cost=exact.cost), Answer(request(), NO_ANSWER)]
    return Books([exact, broken], records, accounts), answers


class Checks(unittest.TestCase):
    def setUp(self):
        self.books, self.answers = right()

    def problems(self, **changes):
        return checks.books(dataclasses.replace(self.books, **changes), self.answers)

    def account(self, **changes):
        key = ("user", USER.name)
        account = dataclasses.replace(self.books.accounts[key], **changes)
        return {**self.books.accounts, key: account}

    def records(self, place, **changes):
        found = list(self.books.records)
        found[place] = dataclasses.replace(found[place], **changes)
        return found

    def test_right_books_are_right(self):
        self.assertEqual(self.problems(), [])

    def test_an_account_that_differs(self):
        self.assertTrue(self.problems(accounts=self.account(state="differs")))

    def test_an_account_that_says_it_agrees_and_does_not(self):
        one_more = self.books.accounts["user", USER.name].consumed + 1
        self.assertTrue(self.problems(accounts=self.account(consumed=one_more)))
        self.assertTrue(self.problems(accounts=self.account(consumed=one_more, recorded=one_more)))

    def test_records_without_an_account(self):
        self.assertTrue(self.problems(accounts={}))

    def test_a_budget_that_is_exceeded(self):
        self.assertTrue(self.problems(accounts=self.account(held=BUDGET.limit)))

    def test_an_overrun(self):
        self.assertTrue(self.problems(records=self.records(0, flags=checks.FLAG_OVERRUN)))

    def test_work_that_nobody_recorded(self):
        lost = Work("alpha", USER.name, "4", 10, 20)
        self.assertTrue(self.problems(work=[*self.books.work, lost]))

    def test_work_above_the_record_of_what_broke_off(self):
        dear = Work("beta", USER.name, "2", 5, 10_000)
        self.assertTrue(self.problems(work=[self.books.work[0], dear]))

    def test_a_record_of_another_cost(self):
        cost = self.books.records[0].cost
        for other in (cost - 1, cost + 1):
            self.assertTrue(
                checks.work_recorded(
                    dataclasses.replace(self.books, records=self.records(0, cost=other))
                )
            )

    def test_a_record_of_work_that_nobody_did(self):
        self.assertTrue(checks.work_recorded(dataclasses.replace(self.books, work=[])))

    def test_an_answer_without_a_record(self):
        self.answers.append(Answer(request(ANALYSIS), 200, id="req_9", cost=1))
        self.assertTrue(self.problems())

    def test_an_answer_that_said_too_little(self):
        self.answers[0] = dataclasses.replace(self.answers[0], cost=self.books.work[0].cost - 1)
        self.assertTrue(self.problems())

    def test_work_above_a_budget_while_the_mesh_runs(self):
        self.assertEqual(checks.spending({USER.name: BUDGET.limit}), [])
        self.assertTrue(checks.spending({USER.name: BUDGET.limit + 1}))
        (pool,) = [budget for budget in documents.SHARED if budget.id == "pool"]
        users = checks.payers_users(pool)
        share = pool.limit // len(users) + 1
        self.assertTrue(checks.spending(dict.fromkeys(users, share)))

    def test_money_that_somebody_keeps(self):
        left = BUDGET.limit - self.books.accounts[BUDGET.scope, BUDGET.id].consumed
        self.assertEqual(checks.leaks(self.books, {BUDGET: left + 1}), [])
        self.assertTrue(checks.leaks(self.books, {BUDGET: left}))


class Money(unittest.TestCase):
    def test_dollars_and_back(self):
        for amount in (0, 1, 999_999_999, 1_000_000_000, 12_345_678_901):
            self.assertEqual(documents.nano(documents.dollars(amount)), amount)
        self.assertEqual(documents.nano("-0.000000001"), -1)
        self.assertEqual(documents.nano("3"), 3_000_000_000)

    def test_who_pays(self):
        for user in documents.USERS:
            scopes = [budget.scope for budget in documents.payers(user)]
            self.assertEqual(scopes[0], "user")
            self.assertEqual("tenant" in scopes, user.tenant is not None)
            self.assertEqual("tier" in scopes, user.tier == "pool")
