"""torch's own tests of a distributed backend, run on one backend: `python conformance.py BACKEND WORLD_SIZE RESULTS`.

Which tests are skipped is decided in torch by the backend's name, when they are defined. Here they are defined as for Gloo, and
then run on the backend that was asked for: so each of them runs that Gloo runs. The results are written as JSON: for each
test `passed`, `skipped` or `failed`, with the reason.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import unittest
from typing import Any

backend, world, results_file = sys.argv[1:4]
only = sys.argv[4:]
os.environ.update(BACKEND="gloo", WORLD_SIZE=world, OMP_NUM_THREADS="1")

import torch  # noqa: E402
import torch.testing._internal.distributed.distributed_test as suite  # noqa: E402

if backend != "gloo":
    import torch.distributed as dist
    import unisono.torch  # noqa: F401

    def instead_of_gloo(make: Any) -> Any:
        """Some tests make groups of Gloo by its name: they get the backend that was asked for."""

        @functools.wraps(make)
        def made(*arguments: Any, **keywords: Any) -> Any:
            if keywords.get("backend") == "gloo":
                keywords["backend"] = backend
            return make(*(backend if one == "gloo" else one for one in arguments), **keywords)

        return made

    dist.init_process_group = instead_of_gloo(dist.init_process_group)
    dist.new_group = instead_of_gloo(dist.new_group)


class Conformance(suite.TestDistBackend, suite.DistributedTest._DistTestBase):
    def setUp(self) -> None:
        super().setUp()
        self._start_processes(torch.multiprocessing.get_context("fork").Process)


class Results(unittest.TestResult):
    def __init__(self) -> None:
        super().__init__()
        self.outcomes: dict[str, list[str]] = {}

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        print(test.id().rsplit(".", 1)[-1], end=" ", flush=True)

    def note(self, test: unittest.TestCase, outcome: str, reason: str = "") -> None:
        print(outcome, flush=True)
        self.outcomes[test.id().rsplit(".", 1)[-1]] = [outcome, reason]

    def addSuccess(self, test: unittest.TestCase) -> None:
        self.note(test, "passed")

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        self.note(test, "skipped", reason)

    def addFailure(self, test: unittest.TestCase, err: object) -> None:
        self.note(test, "failed", self._exc_info_to_string(err, test))  # type: ignore[attr-defined]

    addError = addFailure


names = unittest.TestLoader().getTestCaseNames(Conformance)
chosen = [name for name in names if not only or name in only]
results = Results()
unittest.TestSuite(Conformance(name) for name in chosen).run(results)
with open(results_file, "w") as file:
    json.dump(results.outcomes, file, indent=1)
counts = {kind: sum(1 for outcome, _ in results.outcomes.values() if outcome == kind) for kind in ("passed", "skipped", "failed")}
print(f"{backend}, {world} ranks: {counts}", flush=True)
os._exit(0)
