"""The loop with Accelerate of the page on loops of one's own, in one process and in two."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "own_loop.md"
REPORT = """
import pathlib

found = [run.ledger.digest(), run.trained_samples, run.refreshed_samples]
pathlib.Path(f"rank {rank} of {ranks}").write_text(repr(found))
"""


@pytest.mark.wide
def test_two_processes_hide_what_one_does(tmp_path):
    _, loop = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    script = tmp_path / "loop.py"
    script.write_text(loop + REPORT, encoding="utf-8")
    for launcher in ([], ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]):
        command = [sys.executable, *launcher, script.name]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    alone, *both = [(tmp_path / f"rank {rank} of {ranks}").read_text() for rank, ranks in ((0, 1), (0, 2), (1, 2))]
    assert both == [alone, alone]
    _, trained, refreshed = eval(alone)
    assert 0 < refreshed < 8 * 960 - trained
