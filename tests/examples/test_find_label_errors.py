"""The example that looks for wrong labels among the samples that were never learnt."""

import re
import sys

import pytest
from PIL import Image

from hf_kakurenbo.reporting import report


@pytest.mark.wide
def test_most_of_the_flipped_labels_are_found(example, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(report, "_charts", lambda *args: {})  # they are drawn elsewhere
    monkeypatch.setattr(sys, "argv", ["find_label_errors.py", "--output_dir", str(tmp_path)])
    script = example("find_label_errors")
    _, wrong = script.digits_with_wrong_labels(0.03, 0)
    assert wrong.sum() == round(0.03 * 1797)
    script.main()
    printed = capsys.readouterr().out
    suspects, samples = re.search(r"never learnt: (\d+) of ([\d,]+) samples", printed).groups()
    found, flipped = map(int, re.search(r"wrong labels among them: (\d+) of (\d+)", printed).groups())
    assert (samples, flipped) == ("1,797", wrong.sum())
    assert f"precision {found / int(suspects):.1%}, recall {found / flipped:.1%}" in printed
    assert found > 0.8 * flipped
    assert found > 0.5 * int(suspects)
    with Image.open(tmp_path / "suspects.png") as sheet:
        assert len(sheet.convert("L").getcolors()) > 5
    assert (tmp_path / "report.html").is_file()
