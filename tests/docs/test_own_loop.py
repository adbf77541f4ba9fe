"""The page on loops of one's own: its loop with a loader, in one process and in two, and where it was killed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "own_loop.md"
REPORT = """
import os, pathlib, sys

found = [run.ledger.digest(), run.trained_samples, run.refreshed_samples]
pathlib.Path(f"rank {rank} of {ranks}").write_text(repr(found))
sys.stdout.flush()
os._exit(0)  # without waiting for the other rank to leave the process group
"""
DISTRIBUTED = """
import os
import torch.distributed as dist

ranks, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
if ranks > 1:
    dist.init_process_group("gloo")
    assert dist.get_world_size() == 2
"""
MADE, USED = "\noptimizer = ", "        logits = model(inputs)\n"
WRAPPED = "\nwrapped = nn.parallel.DistributedDataParallel(model) if ranks > 1 else model"


def blocks():
    return re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.wide
def test_two_processes_hide_what_one_does(tmp_path):
    # InfoBatch compares with a mean, which one process and two round otherwise.
    loop = blocks()[1].replace("InfoBatchPolicy", "KakurenboPolicy")
    assert loop.count(MADE) == loop.count(USED) == 1
    loop = loop.replace(MADE, WRAPPED + MADE).replace(USED, USED.replace("model", "wrapped"))
    script = tmp_path / "loop.py"
    script.write_text(DISTRIBUTED + loop + REPORT, encoding="utf-8")
    for launcher in ([], ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]):
        command = [sys.executable, *launcher, script.name]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    alone, *both = [(tmp_path / f"rank {rank} of {ranks}").read_text() for rank, ranks in ((0, 1), (0, 2), (1, 2))]
    assert both == [alone, alone]
    _, trained, refreshed = eval(alone)
    assert 0 < refreshed < 8 * 1000 - trained


def test_the_loop_with_a_loader_needs_no_transformers():
    check = (
        "\nimport sys\nassert 'transformers' not in sys.modules\nassert run.trained_samples < run.replaced_samples\n"
    )
    done = subprocess.run([sys.executable, "-c", blocks()[1] + check], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
