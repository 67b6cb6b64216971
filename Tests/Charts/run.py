"""Runs the tests named (modules of this folder, or of one in PYTHONPATH), and ends with the line that
scripts/test counts."""

import pathlib
import sys
import unittest


class Counting(unittest.TextTestResult):
    """A test counts once, however many of its parts fail."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.broken = set()

    def addFailure(self, test, error):
        self.broken.add(test.id())
        super().addFailure(test, error)

    def addError(self, test, error):
        self.broken.add(test.id())
        super().addError(test, error)

    def addSubTest(self, test, subtest, error):
        if error:
            self.broken.add(test.id())
        super().addSubTest(test, subtest, error)


def main():
    sys.path.insert(0, str(pathlib.Path(__file__).parent))
    suite = unittest.defaultTestLoader.loadTestsFromNames(sys.argv[1:])
    result = unittest.TextTestRunner(
        stream=sys.stdout, verbosity=2, resultclass=Counting).run(suite)
    for test, reason in result.skipped:
        print(f"SKIPPED {test}: {reason}")
    failed = len(result.broken)
    print(f"{result.testsRun - failed - len(result.skipped)} passed, {failed} failed")
    sys.exit(0 if failed == 0 and result.testsRun > 0 else 1)


main()
