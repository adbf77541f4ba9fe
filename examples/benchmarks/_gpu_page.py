"""The page of what was measured on a GPU, made from the records alone."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from _gpu_packages import NEEDED, NEEDED_BY_TESTS
from _gpu_records import Record
from _gpu_stages import METHODS, SEEDS, STAGES, Result
from _report import table

Results = dict[str, Result]

_NOTHING = """\
**Nothing was measured on a GPU yet.** The measurements are written, and every line of them is rehearsed on CPU cores in
the tests; not one number of a GPU is known. This page is made from the records in `docs/gpu/`, of which there are none.
"""
_REHEARSED = "**A rehearsal on a CPU: no figure on this page means anything.**\n"
_HOW = """\
## How to measure

```bash
python examples/benchmarks/gpu.py --list    # the stages, how far each is, and what is missing on the machine
python examples/benchmarks/gpu.py           # eight minutes, most telling first; again until nothing is left
python examples/benchmarks/gpu.py --page docs/gpu.md
```

One GPU, about {minutes} minutes in all. A call can be ended anywhere: every piece is written into a record
(`docs/gpu/*.json`) as soon as it is measured, and the next call continues with what is left; `--stage` names stages,
`--budget-seconds` gives less time, `--records` names another folder, `--again` measures anew. What takes turns in one
run is compared as ratios. `--rehearse` runs every line on the CPU, small.

It needs the repository, and these packages with what they need. Nothing else is installed or downloaded:

| | packages |
| --- | --- |
| all stages | {packages} |
| `tests` | {of_tests} |

`--list` says which are missing, and the command that fetches their wheels on a machine with a network (`datasets`,
`dill` and `multiprocess` are seldom beside PyTorch); `--wheels FOLDER` uses them. Images are made. For the trainings,
`--data FOLDER` names the four files of Fashion-MNIST; without it they are of fractals.
"""
_STAGES = """\
## What is measured

| stage | minutes | what | target |
| --- | --- | --- | --- |
{rows}
"""
_WHAT = {
    "tests": ("the tests that are skipped without a GPU", "all pass"),
    "steps": (
        "ViT-S/16 and ResNet-50 at 224 px in batches of 256, bf16, `torch.compile` off and on, in turns with Trainer: "
        "a step with nothing hidden, an epoch with 30 % hidden; where the host waits for the device",
        "a step at most 1 % longer; an epoch within 1 percentage point of the ideal; no wait but for a copy of the ids",
    ),
    "tokens": ("4,096 tokens, 128k words, pieces of 2²¹ to 2²⁷ logits: time and memory", "≤ 5 % of the logits"),
    "drawing": (
        "every family in batches of 256 at 224 px; with augmentation on the device through a training; what DeiT-Tiny "
        "and ViT-S/16 take",
        "as fast as the training takes them",
    ),
    "trainings": (
        "no hiding, shorter, KAKURENBO and spaced repetition, three seeds, half a minute each: wall time, accuracy",
        "",
    ),
    "processes": (
        "refresh under DistributedDataParallel on one rank, and on two that share the GPU; killed and resumed, with "
        "deterministic kernels",
        "the same samples hidden; the same weights after resuming",
    ),
}


def make_page(records: Path) -> str:
    """The page as Markdown.

    Args:
        records: the folder of the records; there may be none.

    Raises:
        ValueError: a file in it is no record.
    """
    found = {name: Record(records, stage) for name, stage in STAGES.items()}
    measured = [record for record in found.values() if record.pieces]
    parts = ["# On a GPU\n", _state(measured)]
    for name, record in found.items():
        if record.pieces:
            parts.append(f"## {STAGES[name].title}\n\n{_section(name, record)}\n")
    rows = [
        f"| `{name}` | {round(stage.seconds / 60)} | {_WHAT[name][0]} | {_WHAT[name][1]} |"
        for name, stage in STAGES.items()
    ]
    how = _HOW.format(
        minutes=round(sum(stage.seconds for stage in STAGES.values()) / 60),
        packages=", ".join(NEEDED.values()),
        of_tests=", ".join(NEEDED_BY_TESTS.values()),
    )
    return "\n".join([*parts, _STAGES.format(rows="\n".join(rows)), how])


def _state(measured: Sequence[Record]) -> str:
    if not measured:
        return _NOTHING
    lines = [_REHEARSED] if any(record.environment["rehearsal"] for record in measured) else []
    places = dict.fromkeys(_environment(record.environment) for record in measured)
    names = {record.stage.name for record in measured}
    left = [f"a part of `{record.stage.name}`" for record in measured if record.left]
    left += [f"`{name}`" for name in STAGES if name not in names]
    lines += [f"Measured with `examples/benchmarks/gpu.py` on {'; and on '.join(places)}.\n"]
    return "\n".join([*lines, *([f"Not measured yet: {', '.join(left)}.\n"] if left else [])])


def _environment(environment: dict[str, Any]) -> str:
    known = [f"{name} {value}" for name, value in environment.items() if name not in ("rehearsal", "device")]
    return f"{environment['device']} ({', '.join(known)})"


def _section(name: str, record: Record) -> str:
    failed = [
        f"`{piece}` failed: {held['error'].strip().splitlines()[-1]}"
        for piece, held in record.pieces.items()
        if "error" in held
    ]
    failed += [f"`{piece}` ended the process." for piece in record.ended]
    shown = _SECTIONS[name](record.results) if record.results else ""
    return "\n\n".join([part for part in (shown, *failed) if part])


# ---- Numbers ----


def _percent(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.2f} %"


def _spread(values: Sequence[float], form: Callable[[float], str]) -> str:
    """The median, and the lowest and the highest behind it."""
    middle = form(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({form(min(values))} to {form(max(values))})"


def _rate(values: Sequence[float]) -> str:
    return f"{statistics.median(values):,.0f}"


# ---- Sections ----


def _tests(results: Results) -> str:
    counts = results["marked gpu"]
    names = "".join(f"\n- `{name}`" for name in counts["names"])
    return f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped.{names}"


def _steps(results: Results) -> str:
    rows = []
    for name, found in results.items():
        if name == "synchronizations":
            continue
        above = [100 * (a - b) for a, b in zip(found["achieved"], found["ideal"], strict=True)]
        warm = found["first_epochs"][0]
        rows.append(
            [
                name,
                f"{1e3 * statistics.median(found['step_seconds']):.2f} ms",
                _spread(found["again"], _percent),
                _spread(found["nothing_hidden"], _percent),
                _spread(found["epoch_nothing_hidden"], _percent),
                f"{statistics.median(found['forward']):.3f}",
                f"{statistics.median(found['achieved']):.3f} / {statistics.median(found['ideal']):.3f}",
                _spread(above, lambda value: f"{value:+.2f}"),
                f"{warm['plain']:.1f} s / {warm['hiding']:.1f} s",
            ]
        )
    header = [
        "network",
        "step of Trainer",
        "Trainer again (noise)",
        "a step, nothing hidden",
        "an epoch, nothing hidden",
    ]
    header += [
        "forward ÷ step",
        "30 % hidden: achieved / ideal",
        "percentage points above",
        "first two epochs, Trainer / hiding",
    ]
    shown = table(header, rows) if rows else ""
    return "\n\n".join(part for part in (shown, _synchronizations(results.get("synchronizations"))) if part)


def _synchronizations(found: Result | None) -> str:
    if found is None or not found["counted"]:
        return ""
    rows = []
    for name, listened in found.items():
        if name != "counted":
            lines = ", ".join(f"{line} × {count}" for line, count in sorted(listened["lines"].items()))
            rows.append([name, f"{sum(listened['lines'].values()) / listened['steps']:.2f}", lines or "–"])
    return "Where the host waits for the device:\n\n" + table(
        ["", "in a step", f"lines, in {listened['steps']} steps"], rows
    )


def _tokens(results: Results) -> str:
    rows = []
    for name, found in results.items():
        sizes = {int(size): measured for size, measured in found.items() if size.isdigit()}
        for size, measured in sizes.items():
            rows.append(
                [
                    name,
                    f"{found['logits_bytes'] / 1e9:.1f} GB",
                    f"2^{size.bit_length() - 1}{' (in use)' if size == found['in_use'] else ''}",
                    f"{1e3 * measured['seconds']:.1f} ms",
                    f"{measured['seconds'] / found['cross_entropy_seconds']:.2f}",
                    f"{measured['bytes'] / 1e6:,.0f} MB",
                    f"{measured['bytes'] / found['logits_bytes']:.1%}",
                ]
            )
    header = ["logits", "their size", "piece", "statistics", "÷ cross entropy, forward", "beside the logits", "of them"]
    return table(header, rows)


def _drawing(results: Results) -> str:
    path = results.get("data path", {})
    rows = [
        [
            name,
            _rate(found["drawn"]),
            _rate(found["loaded"]),
            f"{found['bytes'] / 1e6:,.0f} MB" if "bytes" in found else "–",
            _rate(path[name]["loaded"]) if name in path else "–",
            f"{path[name]['trained']:,.0f}" if name in path else "–",
            f"{path[name]['hiding']:.1%}" if name in path else "–",
            _rate(found["on_cpu"]),
        ]
        for name, found in results.items()
        if name not in ("data path", "consumed")
    ]
    header = [
        "images/s",
        "drawn",
        "as a dataset",
        "memory",
        "augmented",
        "DeiT-Tiny trained on them",
        "an epoch with 30 % hidden",
        "one CPU thread",
    ]
    consumed = ", ".join(f"{name} {_rate(rates)}" for name, rates in results.get("consumed", {}).items())
    shown = table(header, rows) if rows else ""
    return "\n\n".join(
        part for part in (shown, f"Images/s that a training takes: {consumed}." if consumed else "") if part
    )


def _trainings(results: Results) -> str:
    plan = results.get("epochs")
    rows = []
    for method in METHODS:
        found = {seed: results[f"{method}, seed {seed}"] for seed in SEEDS if f"{method}, seed {seed}" in results}
        plain = {seed: results.get(f"{METHODS[0]}, seed {seed}") for seed in found}
        both = [(one, other) for seed, one in found.items() if (other := plain[seed]) is not None]
        if both:
            rows.append(
                [
                    method,
                    str(len(both)),
                    _spread([one["seconds"] for one, _ in both], lambda value: f"{value:.1f} s"),
                    _spread([one["seconds"] / other["seconds"] for one, other in both], lambda value: f"{value:.1%}"),
                    _spread(
                        [one["backpropagated"] / other["backpropagated"] for one, other in both],
                        lambda value: f"{value:.1%}",
                    ),
                    _spread([one["accuracy"] for one, _ in both], lambda value: f"{value:.2%}"),
                    _spread(
                        [100 * (one["accuracy"] - other["accuracy"]) for one, other in both],
                        lambda value: f"{value:+.2f}",
                    ),
                ]
            )
    about = "Three seeds are a beginning, no proof.\n\n"
    if plan is not None:
        about = f"{plan['task']}, {plan['samples']:,} samples, {plan['epochs']} epochs. {about}"
    header = ["", "seeds", "wall time", "of no hiding's", "samples trained on", "accuracy", "percentage points"]
    return about + (table(header, rows) if rows else "")


def _processes(results: Results) -> str:
    rows = [
        [
            name,
            f"{found['ranks']}, {found['kind']}, {found['wrapper']}, {found['device']}",
            " / ".join(map(str, found["refreshed"])),
            f"{found['hidden_alike']:.1%}",
            f"{found['largest_difference']:.2g}",
            "yes" if found["same_weights"] else "no",
        ]
        for name, found in results.items()
    ]
    header = [
        "",
        "ranks",
        "refreshed, alone / so",
        "hidden as often",
        "largest difference of a loss",
        "the same weights",
    ]
    return table(header, rows)


_SECTIONS: dict[str, Callable[[Results], str]] = {
    "tests": _tests,
    "steps": _steps,
    "tokens": _tokens,
    "drawing": _drawing,
    "trainings": _trainings,
    "processes": _processes,
}
