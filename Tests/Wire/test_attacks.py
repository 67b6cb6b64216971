"""The short form of the attacks; `attacks.py --connections 10000` is the long one."""

import unittest

import attacks


class Attacks(unittest.TestCase):
    def test_honest_clients_are_served_and_memory_is_bounded(self):
        print(attacks.Outcome.HEAD, flush=True)
        for name in attacks.ATTACKS:
            with self.subTest(attack=name):
                outcome = attacks.run(name, connections=1_000, seconds=4)
                print(outcome.row(), flush=True)
                self.assertEqual(outcome.faults, [])
