"""What the documentation shows runs, and what it says is so."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hf_kakurenbo import HidingArguments
from hf_kakurenbo.hiding.statistics import TASKS

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(page for page in (ROOT / "docs").rglob("*.md") if "_build" not in page.parts),
]


def code_blocks(page):
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_the_loop_without_a_trainer_hides_and_learns():
    loop = code_blocks("docs/howto/own_loop.md")[0]
    assert [int(number) for number in re.findall(r"# (\d+)$", loop, re.MULTILINE)] == list(range(1, 12))
    check = "\nimport sys\nassert 'transformers' not in sys.modules\n"
    done = subprocess.run([sys.executable, "-c", loop + check], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = re.findall(r"epoch \d+: (\d+) hidden, ([\d.]+)% correct", done.stdout)
    assert len(lines) == 15
    assert int(lines[0][0]) == 0
    assert max(int(hidden) for hidden, _ in lines) > 100
    assert float(lines[-1][1]) > 95


@pytest.mark.parametrize("interval", [0, 1, 2])
def test_the_loop_without_a_trainer_refreshes_when_it_is_due(interval, capsys):
    loop = code_blocks("docs/howto/own_loop.md")[0]
    policy, model = "KakurenboPolicy(max_hidden_fraction=0.3", "\noptimizer = "
    assert loop.count(policy) == loop.count(model) == 1
    loop = loop.replace(policy, f"{policy}, refresh_interval={interval}")
    loop = loop.replace(model, f"\nmodel.register_forward_pre_hook(count){model}")
    forward_only = []

    def count(model, inputs):
        if not torch.is_grad_enabled():
            forward_only.append(len(inputs[0]))

    scope = {"count": count}
    exec(loop, scope)
    hidden = [int(number) for number in re.findall(r"epoch \d+: (\d+) hidden", capsys.readouterr().out)]
    due = [number for epoch, number in enumerate(hidden[:-1], start=1) if interval and epoch % interval == 0]
    assert sum(forward_only) == scope["run"].refreshed_samples == sum(due)
    assert (sum(forward_only) > 0) == (interval > 0)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing


def test_the_names_of_tasks_are_those_that_have_a_rule():
    page = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
    names = page[page.index("The names: ") : page.index("For anything else write a [function]")]
    assert sorted(re.findall(r"`(\w+)`", names)) == sorted(TASKS)


def test_the_options_of_the_page_are_those_of_the_config():
    rows = re.findall(
        r"^\| `(\w+)` \| `(.*?)` \|", (ROOT / "docs" / "options.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    defaults = HidingArguments()
    expected = [(f.name, repr(getattr(defaults, f.name)).replace("'", '"')) for f in dataclasses.fields(defaults)]
    assert rows == expected
