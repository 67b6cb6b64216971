"""The harness itself: what it reads, what it reckons, and that it leaves nothing behind."""

import contextlib
import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from harness import counting, gate, load, messages, report  # noqa: E402
from harness.contenders import CONTENDERS, NGINX, RELAY, WEIR  # noqa: E402
from harness.figures import Spread, Turn, costs, ratios, rotated  # noqa: E402
from harness.measure import DIRECT, Memory, Outcome, Runner  # noqa: E402
from harness.stage import Stage, cpu_nanoseconds, family  # noqa: E402
from harness.targets import RATIOS, verdicts  # noqa: E402
from harness.workloads import SECTIONS, WORKLOADS, Workload  # noqa: E402

WRK = """Running 2s test @ http://127.0.0.1:20001/bytes/1024
  1 threads and 16 connections
  110530 requests in 2.10s, 132.15MB read
Requests/sec:  52634.05
"""
H2LOAD = """finished in 1.50s, 15002.00 req/s, 15.20MB/s
requests: 22603 total, 22603 started, 22503 done, 22503 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 22503 2xx, 0 3xx, 0 4xx, 0 5xx
"""
STRACE = """% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 52.10    0.040000           8      5000        12 sendto
 47.90    0.036000           7      5010           epoll_wait
------ ----------- ----------- --------- --------- ----------------
100.00    0.076000           7     10010        12 total
"""
CALLGRIND = """events: Ir
fn=(1) outer
10 100
cfn=(2) inner
calls=3 20
11 900
12 5
fn=(2)
20 900
totals: 1005
"""


def turn(milliseconds: float, requests: int = 1_000) -> Turn:
    return Turn(requests, 1.0, round(milliseconds * 1e6), {"median_us": milliseconds})


class Reading(unittest.TestCase):
    def test_wrk(self) -> None:
        self.assertEqual(load.read_wrk(WRK), load.Load(110_530, 2.1))

    def test_wrk_with_refusals_is_no_measurement(self) -> None:
        for wrong in ("Non-2xx or 3xx responses: 4", "Socket errors: connect 0, read 3"):
            with self.assertRaises(load.LoadFailed):
                load.read_wrk(WRK + wrong)

    def test_h2load(self) -> None:
        self.assertEqual(load.read_h2load(H2LOAD, is_timed=True), load.Load(22_503, 1.5))

    def test_h2load_with_refusals_is_no_measurement(self) -> None:
        refused = H2LOAD.replace("0 4xx", "7 4xx")
        failed = H2LOAD.replace("0 failed", "1 failed")
        for text, is_timed in ((refused, True), (failed, False), ("nothing", True)):
            with self.assertRaises(load.LoadFailed):
                load.read_h2load(text, is_timed=is_timed)

    def test_own_generator(self) -> None:
        found = load.read_own("requests 8000 errors 0 seconds 2.001 median_us 57 max_us 900\n")
        self.assertEqual(found.latency_us, {"median_us": 57.0, "max_us": 900.0})
        with self.assertRaises(load.LoadFailed):
            load.read_own("requests 8000 errors 1 seconds 2.001 median_us 57\n")

    def test_strace(self) -> None:
        self.assertEqual(
            counting.calls_of_strace(STRACE), {"sendto": 5_000, "epoll_wait": 5_010}
        )

    def test_callgrind(self) -> None:
        self.assertEqual(counting.total_of_dump(CALLGRIND), 1_005)
        self.assertEqual(counting.self_costs(CALLGRIND), {"outer": 105, "inner": 900})


class Reckoning(unittest.TestCase):
    def test_cost_is_told_for_a_number_of_requests(self) -> None:
        # 10 ms for 1,000 requests.
        self.assertAlmostEqual(turn(10).cost(100_000), 1.0)
        self.assertEqual(costs([turn(30), turn(10), turn(20)], 1_000).text(3), "0.020 (0.010–0.030)")

    def test_ratios_are_of_the_same_round(self) -> None:
        # Everything takes twice as long in the second round: the ratio does not.
        self.assertEqual(ratios([turn(12), turn(24)], [turn(10), turn(20)]), Spread(1.2, 1.2, 1.2))
        with self.assertRaises(ValueError):
            ratios([turn(1), turn(2)], [turn(1)])

    def test_everybody_goes_first_and_nobody_is_left_out(self) -> None:
        orders = [rotated(["a", "b", "c"], number) for number in range(6)]
        self.assertEqual({order[0] for order in orders}, {"a", "b", "c"})
        self.assertTrue(all(sorted(order) == ["a", "b", "c"] for order in orders))
        self.assertEqual(len({tuple(order) for order in orders}), 6)

    def test_a_gate_closes_at_five_percent(self) -> None:
        self.assertTrue(gate.judge(10_499, 10_000, gate.INSTRUCTIONS)[0])
        self.assertFalse(gate.judge(10_501, 10_000, gate.INSTRUCTIONS)[0])
        self.assertFalse(gate.judge(6.4, 6.01, gate.SYSTEM_CALLS)[0])
        self.assertFalse(gate.judge(1, 0, gate.ALLOCATIONS)[0])
        self.assertFalse(gate.judge(1, None, gate.ALLOCATIONS)[0])

    def test_messages_have_the_size_that_their_names_say(self) -> None:
        self.assertLess(4_000, len(messages.chat_request()))
        self.assertLessEqual(len(messages.chat_request()), 4_096)
        self.assertEqual(json.loads(messages.stream_request())["stream"], True)
        self.assertLess(2_000, len(messages.json_request()))


class Reporting(unittest.TestCase):
    def results(self) -> report.Results:
        results = report.Results("Benchmarks/run", "2026-01-01", ["2 cores"], {"nginx": "1.2.3"})
        results.outcomes["get-64"] = Outcome(
            {RELAY: [turn(10)], WEIR: [turn(11)], NGINX: [turn(20)]}, {"envoy": "Envoy | is\nmissing"}
        )
        results.memory["h1/weir"] = Memory(9 << 20, 10 << 20, 1_000, 2 << 20)
        return results

    def test_targets_are_judged_by_the_median(self) -> None:
        met = {one.target: one.met for one in verdicts(self.results())}
        self.assertIs(met["GET, 64 connections ÷ relay"], True)
        self.assertIs(met["memory, idle"], False)
        self.assertIsNone(met["HTTP/2 ÷ nghttpx"])

    def test_who_is_missing_is_named(self) -> None:
        text = report.text(self.results())
        self.assertIn("| Envoy | not measured: Envoy / is missing |", text)
        self.assertIn("| Weir | 1.100 (1.100–1.100) | 1.10 (1.10–1.10) | 0.55 (0.55–0.55) |", text)

    def test_the_same_figures_make_the_same_document(self) -> None:
        results = self.results()
        results.memory["tls/relay"] = "it speaks no TLS"
        kept = json.loads(json.dumps(results.as_json()))
        self.assertEqual(report.text(report.Results.from_json(kept)), report.text(results))

    def test_every_name_is_known(self) -> None:
        keys = {workload.key for workload in WORKLOADS}
        self.assertLessEqual({target.workload for target in RATIOS}, keys)
        for workload in WORKLOADS:
            self.assertIn(workload.section, SECTIONS)
            self.assertLessEqual(set(workload.contenders), set(CONTENDERS))


class Running(unittest.TestCase):
    def test_relay_and_direct(self) -> None:
        def ask(stage: Stage, port: int, seconds: float) -> load.Load:
            return load.own(stage, "open", port, "/bytes/1024", None, 4, seconds, rate=500)

        tiny = Workload("tiny", "h1", "tiny", "h1", (RELAY,), ask, is_latency=True)
        with Stage() as stage:
            with contextlib.redirect_stderr(io.StringIO()) as said:
                outcome = Runner(stage).measure(tiny, 2, 0.3, {RELAY})
            self.assertIn("CPU-seconds", said.getvalue())
            self.assertEqual(outcome.missing, {})
            self.assertEqual([len(outcome.turns[key]) for key in (DIRECT, RELAY)], [2, 2])
            for one in outcome.turns[RELAY]:
                self.assertGreater(one.requests, 100)
                # A request through the relay costs a microsecond at the least.
                self.assertGreater(one.cost(1), 1e-6)

    def test_an_upstream_answers_what_is_asked(self) -> None:
        with Stage() as stage:
            port = stage.port()
            command = [str(stage.tool("upstream")), str(port)]
            stage.start("upstream", command, stage.load_core, port=port)
            with counting.Client(port) as client:
                for path, body, size in (
                    ("/bytes/1024", None, 1_024),
                    ("/bytes/8388608", None, 8 << 20),
                    (messages.CHAT_PATH, messages.chat_request(), 2_048),
                ):
                    client.socket.sendall(messages.request_bytes(path, body))
                    answer = client.read_answer()
                    self.assertEqual(len(answer), size)
            usage = json.loads(answer)["usage"]
            self.assertEqual(usage["total_tokens"], usage["prompt_tokens"] + usage["completion_tokens"])

    def test_processes_end_with_an_interrupted_run(self) -> None:
        script = (
            "import sys, time; sys.path.insert(0, sys.argv[1])\n"
            "from harness.stage import Stage\n"
            "with Stage() as stage:\n"
            "    port = stage.port()\n"
            "    run = stage.start('u', [str(stage.tool('upstream')), str(port)], 0, port=port)\n"
            "    print(run.pid, stage.folder, flush=True)\n"
            "    time.sleep(30)\n"
        )
        folder = str(pathlib.Path(__file__).resolve().parent.parent)
        run = subprocess.Popen(
            [sys.executable, "-c", script, folder], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        pid, _, stage_folder = run.stdout.readline().decode().strip().partition(" ")
        self.assertEqual(family(run.pid), [run.pid, int(pid)])
        run.send_signal(signal.SIGINT)
        run.wait(10)
        run.stdout.close()
        self.assertFalse(os.path.exists(f"/proc/{pid}"))
        self.assertFalse(os.path.exists(stage_folder))

    def test_time_on_a_core_is_counted(self) -> None:
        before = cpu_nanoseconds(os.getpid())
        ends = time.monotonic() + 5
        while cpu_nanoseconds(os.getpid()) - before < 20_000_000:
            self.assertLess(time.monotonic(), ends)


if __name__ == "__main__":
    unittest.main()
