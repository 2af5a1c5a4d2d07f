"""What the examples in Python measure with, and how they take turns. The examples themselves run in `cargo xtask demo --python`."""

from __future__ import annotations

import random
import sys
import textwrap
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "python"
sys.path.insert(0, str(EXAMPLES))

import side_by_side  # noqa: E402

RANK = """
import os, sys
sys.path.insert(0, {examples!r})
import side_by_side, torch
import torch.distributed as dist

if sys.argv[1] == "unisono":
    import unisono.torch
dist.init_process_group(sys.argv[1])

def work(request):
    numbers = torch.full((4,), float(dist.get_rank() + request["plus"]))
    dist.all_reduce(numbers)
    return {{"sum": numbers.tolist()}}

side_by_side.serve_in_step({{"ranks": dist.get_world_size()}}, work, is_group=True)
"""


def test_contestants_that_are_groups_of_ranks_take_turns(tmp_path: Path) -> None:
    script = tmp_path / "rank.py"
    script.write_text(RANK.format(examples=str(EXAMPLES)))
    backends = ("gloo", "unisono")
    with side_by_side.SideBySide(quiet=True) as contest:
        for backend in backends:
            contest.start(backend, side_by_side.torchrun(2, str(script), [backend]), {"OMP_NUM_THREADS": "1"})
            assert contest.ready[backend] == {"ranks": 2}
        ways = [side_by_side.Way(name, name, {"plus": 10}) for name in backends]
        answers = contest.take_turns(ways, 2)
    for backend in backends:
        assert answers[backend] == [{"sum": [21.0] * 4}] * 2


@pytest.mark.parametrize("when", ["at once", "in its turn"])
def test_a_contestant_that_fails_ends_the_example_and_its_last_lines_are_shown(tmp_path: Path, when: str) -> None:
    script = tmp_path / "fails.py"
    serve = "import side_by_side\nside_by_side.serve({}, lambda request: 1 / 0)" if when == "in its turn" else "1 / 0"
    script.write_text(f"import sys\nsys.path.insert(0, {str(EXAMPLES)!r})\n" + textwrap.dedent(serve))
    with pytest.raises(SystemExit, match="ZeroDivisionError"), side_by_side.SideBySide(quiet=True) as contest:
        contest.start("fails", [sys.executable, str(script)], {})
        contest.take_turns([side_by_side.Way("fails", "fails", {})], 1)


def test_a_ratio_has_the_interval_of_its_rounds() -> None:
    found = side_by_side.ratio([2, 4, 6, 8, 20], [2, 2, 2, 2, 2])
    assert (found.median, found.low, found.high) == (3, 1, 10)
    assert found.confidence == pytest.approx(1 - 2 / 32)
    nine = side_by_side.ratio(range(1, 10), [1] * 9)
    assert (nine.median, nine.low, nine.high) == (5, 2, 8)
    assert nine.confidence == pytest.approx(1 - 2 * 10 / 512)


def test_the_interval_holds_the_median_as_often_as_it_says() -> None:
    dice = random.Random(1)
    for count in (5, 7, 15):
        trials = [side_by_side.ratio([dice.expovariate(1) for _ in range(count)], [1.0] * count) for _ in range(2000)]
        true_median = 0.6931
        inside = sum(trial.low <= true_median <= trial.high for trial in trials) / len(trials)
        assert abs(inside - trials[0].confidence) < 0.03
        assert trials[0].confidence >= 0.9


def test_a_table_stands_in_columns() -> None:
    shown = side_by_side.table(["", "tokens/s"], [["gloo", "1.0"], ["unisono", "123.0"]])
    assert shown.splitlines() == [
        "|         | tokens/s |",
        "|---------|---------:|",
        "| gloo    |      1.0 |",
        "| unisono |    123.0 |",
    ]


def test_a_stopwatch_counts_calls_also_those_that_raise() -> None:
    watch = side_by_side.Stopwatch()
    divide = watch.around(lambda by: 1 / by)
    assert divide(4) == 0.25
    with pytest.raises(ZeroDivisionError):
        divide(0)
    assert watch.calls == 2 and watch.seconds > 0
    watch.reset()
    assert watch.calls == 0 and watch.seconds == 0
