"""The policies that come with the package, and what the documentation's table says of each."""

from pathlib import Path

PAGE = (Path(__file__).parent.parent / "docs" / "policies.md").read_text(encoding="utf-8")
POLICIES = [
    "coin",
    "forgetting",
    "ies",
    "importance",
    "infobatch",
    "kakurenbo",
    "order_dp",
    "random",
    "selective_backprop",
    "seta",
    "spaced_repetition",
]


def rows():
    cells = [line.strip("|").split("|") for line in PAGE.splitlines() if line.startswith("| `")]
    return {row[0].strip().strip("`"): row[1:] for row in cells}
