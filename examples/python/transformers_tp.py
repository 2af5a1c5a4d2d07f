"""Tensor-parallel text generation with transformers: `tp_plan="auto"`, on Gloo, on unisono, and in one process.

    pip install transformers torch ./bindings/python
    python examples/python/transformers_tp.py            # tables; --json for programs

The model is a Llama made on the spot (512 wide, 8 layers, f32, random weights), so nothing is downloaded. What a program of your
own needs is in `load`: the two lines with `unisono` in them. Everything else measures: the three ways take turns (see
side_by_side.py), and the program fails unless all of them generate the same tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from statistics import median
from typing import Any

import side_by_side
import torch
import torch.distributed as dist
from side_by_side import Stopwatch, Way

RANKS = 2
# What sums in another order may differ by, at most, in a logit; they are of the order of 1.
TOLERANCE = 1e-4
PROMPT = list(range(2, 34))


def make_model(folder: str) -> None:
    """A Llama with random weights, the same in every run."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=2048,
        hidden_size=512,
        intermediate_size=1376,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=1024,
        bos_token_id=0,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def load(folder: str, backend: str) -> Any:
    """The model, split over the ranks of torchrun if there is a backend."""
    from transformers import AutoModelForCausalLM
    from transformers.distributed import DistributedConfig

    if backend == "none":
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if backend == "unisono":
        import unisono.torch  # noqa: F401  # registers the backend
    dist.init_process_group(backend)
    split = DistributedConfig(tp_plan="auto")
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, distributed_config=split)


def contest(folder: str, backend: str, threads: int) -> None:
    """Generates whenever it is asked to; the work of one contestant, or of one rank of it."""
    torch.set_num_threads(threads)
    model = load(folder, backend).eval()
    watch = Stopwatch()
    dist.all_reduce = watch.around(dist.all_reduce)  # which is what transformers calls
    prompt = torch.tensor([PROMPT])

    def generate(request: dict[str, Any]) -> dict[str, Any]:
        tokens = int(request["tokens"])
        watch.reset()
        start = time.perf_counter()
        generated = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False
        )
        seconds = time.perf_counter() - start
        return {
            "seconds": seconds,
            "in_collectives": watch.seconds,
            "calls": watch.calls,
            "tokens": generated[0, len(PROMPT) :].tolist(),
        }

    with torch.no_grad():
        logits = model(prompt).logits
    ready = {"logits": (logits.full_tensor() if hasattr(logits, "full_tensor") else logits)[0, -1].tolist()}
    side_by_side.serve_in_step(ready, generate, is_group=backend != "none")


def judge(tokens: int, rounds: int, as_json: bool) -> int:
    with side_by_side.SideBySide(as_json) as contest, tempfile.TemporaryDirectory() as folder:
        contest.tell("making a model")
        make_model(folder)
        script = os.path.abspath(__file__)

        def arguments(backend: str, threads: int) -> list[str]:
            return ["--contestant", backend, "--model", folder, "--threads", str(threads)]

        for backend in ("gloo", "unisono"):
            contest.start(backend, side_by_side.torchrun(RANKS, script, arguments(backend, 1)), {"OMP_NUM_THREADS": "1"})
        for threads in (1, RANKS):
            name = f"one process, {threads} thread{'s' if threads > 1 else ''}"
            contest.start(name, [sys.executable, script, *arguments("none", threads)], {})
        ways = [Way(name, name, {"tokens": tokens}) for name in contest.ready]
        answers = contest.take_turns(ways, rounds)
        return report(contest.ready, answers, tokens, as_json)


def report(ready: dict[str, Any], answers: dict[str, list[Any]], tokens: int, as_json: bool) -> int:
    rates = {name: [tokens / turn["seconds"] for turn in turns] for name, turns in answers.items()}
    alone = "one process, 1 thread"
    yardstick = torch.tensor(ready[alone]["logits"])
    results: dict[str, Any] = {}
    for name, turns in answers.items():
        share = [turn["in_collectives"] / turn["seconds"] for turn in turns]
        results[name] = {
            "tokens_per_second": median(rates[name]),
            "share_in_collectives": median(share),
            "collectives_per_token": turns[0]["calls"] / tokens,
            "microseconds_per_collective": median(
                1e6 * turn["in_collectives"] / turn["calls"] if turn["calls"] else 0.0 for turn in turns
            ),
            "largest_difference_of_logits": float((torch.tensor(ready[name]["logits"]) - yardstick).abs().max()),
            "same_tokens": all(turn["tokens"] == answers[alone][0]["tokens"] for turn in turns),
        }
    ratios = {name: side_by_side.ratio(rates["unisono"], rates[name]) for name in rates if name != "unisono"}
    agree = all(
        result["same_tokens"] and result["largest_difference_of_logits"] <= TOLERANCE for result in results.values()
    )
    if as_json:
        over = {name: ratio.as_json() for name, ratio in ratios.items()}
        print(json.dumps({"ways": results, "unisono_over": over, "outputs_agree": agree}))
        return 0 if agree else 1
    rows = [
        [
            name,
            f"{result['tokens_per_second']:.1f}",
            f"{result['collectives_per_token']:.0f}",
            f"{result['microseconds_per_collective']:.1f}",
            f"{100 * result['share_in_collectives']:.0f} %",
            f"{result['largest_difference_of_logits']:.0e}",
            "yes" if result["same_tokens"] else "NO",
        ]
        for name, result in results.items()
    ]
    header = ["", "tokens/s", "all-reduces/token", "µs each", "of the time", "logits differ by", "same tokens"]
    print(side_by_side.table(header, rows))
    for name, found in ratios.items():
        print(f"unisono is {found} times as fast as {name}")
    print(side_by_side.said_of(ratios))
    print("the outputs agree" if agree else "THE OUTPUTS DO NOT AGREE")
    return 0 if agree else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--tokens", type=int, default=64, help="generated per turn (64)")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each way (7)")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of tables")
    parser.add_argument("--contestant", choices=("gloo", "unisono", "none"), help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contestant:
        contest(options.model, options.contestant, options.threads)
        return 0
    return judge(options.tokens, options.rounds, options.json)


if __name__ == "__main__":
    sys.exit(main())
