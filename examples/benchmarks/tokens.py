"""What the statistics of tokens cost beside the largest logits that people train with: memory, and time of a step.

```
python examples/benchmarks/tokens.py                    # 8 × 1,024 tokens, 128k words: 6 GB of memory, five minutes
python examples/benchmarks/tokens.py --device cuda      # the same on a GPU
python examples/benchmarks/tokens.py --quick            # a smoke test, in seconds
```

Memory: the peak while the statistics of a batch are computed, less what the logits held before, as a fraction of the
logits. Time: of the statistics, as a fraction of the smallest step that a language model of some width could have: the
forward and the backward pass of its output layer and of the loss, without any layer below. The two take turns on the
same logits; the figure is the median of the rounds and, behind it in brackets, their range.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from hf_kakurenbo.hiding import token_statistics


def memory_of(function: Callable[[], object], device: torch.device) -> int:
    """Bytes at the peak of a call, less those held before it."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew
    function()
    return _resident("VmHWM") - before


def _resident(name: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {name}: without it the memory of a process is not known; use a GPU.")


def seconds_of(function: Callable[[], object], device: torch.device) -> float:
    """Wall time of a call, the device's work included."""
    _wait_for(device)
    started = time.perf_counter()
    function()
    _wait_for(device)
    return time.perf_counter() - started


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def make_batch(batch: int, length: int, vocabulary: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Logits (B, T, V) float32 and labels (B, T)."""
    generator = torch.Generator(device).manual_seed(0)
    logits = torch.empty(batch, length, vocabulary, device=device).normal_(generator=generator)
    return logits, torch.randint(0, vocabulary, (batch, length), device=device, generator=generator)


def report_memory(batch: int, length: int, vocabulary: int, device: torch.device) -> None:
    """Print the memory that the statistics take."""
    logits, labels = make_batch(batch, length, vocabulary, device)
    token_statistics(logits[:1, :8], labels[:1, :8], shift=True)  # what is loaded once
    extra = memory_of(lambda: token_statistics(logits, labels, shift=True), device)
    print(
        f"Memory, {batch} x {length:,} tokens, {vocabulary:,} words: logits {logits.nbytes / 1e6:,.0f} MB, "
        f"statistics {extra / 1e6:,.1f} MB beside them: {extra / logits.nbytes:.2%}"
    )


def report_time(rows: int, vocabulary: int, width: int, rounds: int, device: torch.device) -> None:
    """Print the time that the statistics take, beside that of the output layer and the loss."""
    head = nn.Linear(width, vocabulary, bias=False, device=device)
    hidden = torch.randn(1, rows, width, device=device, requires_grad=True)
    labels = torch.randint(0, vocabulary, (1, rows), device=device)
    logits = head(hidden).detach()

    def step() -> None:
        head.zero_grad()
        functional.cross_entropy(head(hidden).flatten(0, 1), labels.flatten()).backward()

    shares = []
    for round_number in range(rounds + 1):
        measured = seconds_of(lambda: token_statistics(logits, labels, shift=True), device)
        fraction = measured / seconds_of(step, device)
        if round_number:  # the first warms up
            shares.append(fraction)
    print(
        f"Time, {rows:,} tokens, {vocabulary:,} words, width {width:,}: {statistics.median(shares):.2%} "
        f"({min(shares):.2%}..{max(shares):.2%}) of the output layer's step"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda.")
    parser.add_argument("--rounds", type=int, default=5, help="Rounds of the time.")
    parser.add_argument("--quick", action="store_true", help="Small sizes, one round.")
    args = parser.parse_args()
    device = torch.device(args.device)
    vocabulary, batch, length, rows, widths = 128 * 1024, 8, 1024, 512, (1024, 2048, 4096)
    if args.quick:
        vocabulary, batch, length, rows, widths, args.rounds = 4096, 4, 512, 64, (64,), 1
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} thread(s)"
    print(f"{name}, torch {torch.__version__}, Python {platform.python_version()}")
    report_memory(batch, length, vocabulary, device)
    for width in widths:
        report_time(rows, vocabulary, width, args.rounds, device)


if __name__ == "__main__":
    main()
