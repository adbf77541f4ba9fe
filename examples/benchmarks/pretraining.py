"""What pre-training on formulas is worth with few labels, and what hiding costs and saves in it, over several seeds.

```
python examples/benchmarks/pretraining.py            # five seeds, about twenty minutes on two cores
python examples/benchmarks/pretraining.py --quick    # a smoke test: two seeds, half a minute
```

Every seed runs the job of `examples/pretrain_fdsl.py` anew: a tiny vision transformer is pre-trained on a stream of
fractals with and without hiding, and a third time without hiding for as many epochs as backpropagate as many samples as
hiding left: the compute-matched baseline, which has nothing but the shorter time. Each is then fine-tuned on a few
handwritten digits, beside one from random weights. A seed draws the weights, the order of the images and the digits
with labels. Differences are paired by seed; behind ± is the standard deviation over the seeds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

SCRIPT = Path(__file__).parent.parent / "pretrain_fdsl.py"
EPOCHS, QUICK_EPOCHS = 120, 4
SCRATCH, HIDING, PLAIN, SHORTER = "from scratch", "with hiding", "without hiding", "without hiding, shorter"


def run(folder: Path, seed: int, options: Sequence[str]) -> tuple[dict[str, float], dict[str, Any]]:
    """Run the job; the accuracies by title, and what was measured of its first training."""
    command = [sys.executable, str(SCRIPT), "--output_dir", str(folder), "--seed", str(seed), "--finetune_seeds", "1"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    found = json.loads((folder / "few_labels.json").read_text(encoding="utf-8"))
    results = json.loads((folder / "train_results.json").read_text(encoding="utf-8"))
    return {title: accuracies[0] for title, accuracies in found.items()}, results


def one_seed(seed: int, epochs: int, options: Sequence[str]) -> dict[str, dict[str, float]]:
    """The figures of one seed, by title."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        accuracies, hiding = run(folder / "both", seed, ["--num_train_epochs", str(epochs), *options])
        plain = json.loads((folder / "both" / "without_hiding" / "train_results.json").read_text(encoding="utf-8"))
        samples = round(plain["train_samples_per_second"] * plain["train_runtime"])
        fraction = hiding["kakurenbo/trained_samples"] / samples
        short = max(1, round(epochs * fraction))
        others = ["--hiding_policy", "none", "--num_train_epochs", str(short), *options]
        shorter, measured = run(folder / "shorter", seed, others)
    drawn = hiding["kakurenbo/trained_samples"] + hiding["kakurenbo/refreshed_samples"]
    return {
        SCRATCH: {"accuracy": accuracies[SCRATCH]},
        PLAIN: {"accuracy": accuracies[PLAIN], "samples": 1.0, "drawn": 1.0, "seconds": plain["train_runtime"]},
        HIDING: {
            "accuracy": accuracies[HIDING],
            "samples": fraction,
            "drawn": drawn / samples,
            "seconds": hiding["train_runtime"],
        },
        SHORTER: {
            "accuracy": shorter[PLAIN],
            "samples": short / epochs,
            "drawn": short / epochs,
            "seconds": measured["train_runtime"],
        },
    }


def mean_and_spread(values: Sequence[float], form: str = "{:.1%}") -> str:
    """The mean, and the standard deviation behind it."""
    return f"{form.format(np.mean(values))} ± {form.format(np.std(values, ddof=1))}"


def table(seeds: Sequence[dict[str, dict[str, float]]]) -> str:
    """The figures as Markdown."""
    header = ["pre-training", "accuracy on digits", "less than without hiding, paired", "samples backpropagated"]
    rows = [[*header, "images drawn", "wall time"], ["---"] * 6]
    for title in seeds[0]:
        accuracy = [seed[title]["accuracy"] for seed in seeds]
        less = [seed[PLAIN]["accuracy"] - seed[title]["accuracy"] for seed in seeds]
        cells = [mean_and_spread(accuracy), "–" if title == PLAIN else mean_and_spread(less, "{:.2%}")]
        if title == SCRATCH:
            cells += ["–"] * 3
        else:
            cells += [f"{np.mean([seed[title][what] for seed in seeds]):.1%}" for what in ("samples", "drawn")]
            cells.append(mean_and_spread([seed[title]["seconds"] / seed[PLAIN]["seconds"] for seed in seeds]))
        rows.append([title, *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    """Run all seeds and print the table."""
    parser = argparse.ArgumentParser(description="Measure pre-training on formulas with few labels, and hiding in it.")
    parser.add_argument("--seeds", type=int, help="how many; 5 by default, quick 2")
    parser.add_argument("--quick", action="store_true", help="a smoke test: figures worth nothing")
    parser.add_argument("--output", type=Path, help="a file for the Markdown, beside printing it")
    args = parser.parse_args()
    count = args.seeds or (2 if args.quick else 5)
    if count < 2:
        parser.error(f"--seeds {count}: a spread needs 2 at least.")
    options = ["--instances", "10", "--finetune_epochs", "2"] if args.quick else []
    seeds = []
    for seed in range(count):
        seeds.append(one_seed(seed, QUICK_EPOCHS if args.quick else EPOCHS, options))
        print(f"seed {seed}: " + ", ".join(f"{title} {found['accuracy']:.1%}" for title, found in seeds[-1].items()))
        sys.stdout.flush()
    report = table(seeds)
    print("\n" + report)
    if args.output is not None:
        args.output.write_text(report + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
