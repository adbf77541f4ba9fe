"""The examples of tasks other than classification, run as a user runs them, reduced to seconds; and their parts."""

import json
import os
import re
import shutil
import socket
import sys

import numpy as np
import pytest
import transformers
from test_examples import EXAMPLES, REFRESHED, SMALL, THREE_EPOCHS, TRAINED, call, command, results, together
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

TOKENS, QUESTIONS, TEXTS, NUMBERS = (
    f"{name}.py" for name in ("token_classification", "question_answering", "seq2seq", "regression")
)
SCRIPTS = (TOKENS, QUESTIONS, TEXTS, NUMBERS)
OUTPUT = {
    TOKENS: "outputs/python_highlighting",
    QUESTIONS: "outputs/python_signatures",
    TEXTS: "outputs/dates",
    NUMBERS: "outputs/python_complexity",
}
SCORE = {TOKENS: "eval_f1", QUESTIONS: "eval_exact_match", TEXTS: "eval_exact_match", NUMBERS: "eval_mse"}
TITLE = {
    TOKENS: "macro F1",
    QUESTIONS: "exact match",
    TEXTS: "exact match",
    NUMBERS: "mean squared error (lower is better)",
}
AUTO_MODEL = {
    TOKENS: AutoModelForTokenClassification,
    QUESTIONS: AutoModelForQuestionAnswering,
    TEXTS: AutoModelForSeq2SeqLM,
    NUMBERS: AutoModelForSequenceClassification,
}
# Every loss of every step is compared, not that of an epoch.
EACH_STEP = ["--logging_strategy", "steps", "--logging_steps", "1", "--save_strategy", "epoch"]
# Runs one script after another, each as if it were alone, without loading the libraries for each.
ONE_AFTER_ANOTHER = """
import runpy, sys
scripts, options = sys.argv[1].split(","), sys.argv[2:]
for script in scripts:
    sys.argv = [script, *options, "--output_dir", script + "-out"]
    runpy.run_path(script, run_name="__main__")
"""


def with_base_class(script, folder):
    """A copy of a script that trains with the trainer of Transformers."""
    source = (EXAMPLES / script).read_text(encoding="utf-8")
    source = source.replace("import KakurenboConfig, KakurenboTrainer", "import KakurenboConfig")
    source = source.replace("return KakurenboTrainer(", "return Trainer(")
    source = source.replace("(KakurenboMixin, Seq2SeqTrainer)", "(Seq2SeqTrainer)")
    assert not re.search(r"KakurenboTrainer|\(KakurenboMixin", source)
    (folder / script).write_text(source, encoding="utf-8")
    return folder / script


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    """All jobs without arguments, with our trainer and with that of Transformers: what was said, and two folders."""
    ours, theirs = (tmp_path_factory.mktemp(name) for name in ("ours", "theirs"))
    small = [*SMALL, *THREE_EPOCHS, *EACH_STEP]
    plain = ",".join(str(with_base_class(script, theirs)) for script in SCRIPTS)
    commands = [[sys.executable, "-c", ONE_AFTER_ANOTHER, plain, *small, "--hiding_policy", "none"]]
    commands += [command(script, *small) for script in SCRIPTS]
    path = os.pathsep.join([str(EXAMPLES), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    done = together(commands, ours, PYTHONPATH=path)
    for each in done:
        assert each.returncode == 0, each.stderr
    return dict(zip(SCRIPTS, done[1:], strict=True)), ours, theirs


def rows_of(output):
    _, _, rest = output.partition(f"{'with hiding':>18}{'without hiding':>18}\n")
    assert rest, "there is no table"
    rows = [re.split(r"\s{2,}", line) for line in rest.splitlines()[1:5]]
    return {name: cells for name, *cells in rows}


def shown(script, value):
    return f"{value:,.4g}" if script == NUMBERS else f"{value:.2%}"


@pytest.mark.wide
@pytest.mark.parametrize("script", SCRIPTS)
def test_the_table_says_what_was_measured(jobs, script):
    done, folder, _ = jobs
    rows = rows_of(done[script].stdout)
    hiding, plain = results(folder / OUTPUT[script]), results(folder / OUTPUT[script] / "without_hiding")
    assert list(rows) == [TITLE[script], "samples backpropagated", "samples forward-only", "wall time"]
    assert rows[TITLE[script]] == [shown(script, each[SCORE[script]]) for each in (hiding, plain)]
    assert rows["samples backpropagated"] == [str(hiding["kakurenbo/trained_samples"]), "360"] == [str(TRAINED), "360"]
    assert rows["samples forward-only"] == [str(hiding["kakurenbo/refreshed_samples"]), "0"] == [str(REFRESHED), "0"]
    assert [line for line in done[script].stdout.splitlines() if len(line) > 80] == []
    assert done[script].stdout.startswith("World size 1 | F = 0.3 | global batch 32 | seed 42 | cpu\n")


@pytest.mark.wide
@pytest.mark.parametrize("script", SCRIPTS)
def test_the_model_learns_and_loads_back(jobs, script):
    _, folder, _ = jobs
    saved = folder / OUTPUT[script]
    losses = [entry["loss"] for entry in results(saved, "trainer_state.json")["log_history"] if "loss" in entry]
    assert losses[-1] < losses[0]
    model, loading = AUTO_MODEL[script].from_pretrained(saved, output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    tokens = AutoTokenizer.from_pretrained(saved)("def f(a=1): return 2")["input_ids"]
    assert max(tokens) < model.config.vocab_size
    if script == TOKENS:
        assert {"keyword", "function", "method", "string", "op"} <= set(model.config.label2id)
    if script == NUMBERS:
        assert model.config.problem_type == "regression"
        assert model.config.num_labels == 1


@pytest.mark.wide
@pytest.mark.parametrize("script", SCRIPTS)
def test_with_nothing_hidden_it_is_the_trainer_of_transformers(jobs, script):
    _, ours, theirs = jobs
    logs, weights = [], []
    for folder in (ours / OUTPUT[script] / "without_hiding", theirs / f"{script}-out"):
        history = [entry for entry in results(folder, "trainer_state.json")["log_history"] if "loss" in entry]
        logs.append([(entry["loss"], entry["grad_norm"], entry["learning_rate"]) for entry in history])
        weights.append((folder / "model.safetensors").read_bytes())
    assert len(logs[0]) == 3 * 4
    assert logs[0] == logs[1]
    assert weights[0] == weights[1]


@pytest.mark.wide
def test_resumed_it_ends_where_it_would_have_ended(jobs, tmp_path):
    _, ours, _ = jobs
    ended = ours / OUTPUT[TEXTS]
    whole = results(ended, "trainer_state.json")["global_step"]
    shutil.copytree(ended, tmp_path / "out", ignore=shutil.ignore_patterns("without_hiding", f"checkpoint-{whole}"))
    (tmp_path / "out" / "model.safetensors").unlink()
    options = [*SMALL, *THREE_EPOCHS, *EACH_STEP, "--resume_from_checkpoint", "last", "--compare", "false"]
    done = call(command(TEXTS, *options, "--output_dir", "out"), tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^Training with hiding, from out/checkpoint-\d+$", done.stdout, re.MULTILINE)
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (ended / "model.safetensors").read_bytes()
    assert results(tmp_path / "out")["kakurenbo/trained_samples"] == TRAINED


@pytest.mark.wide
@pytest.mark.parametrize("script", SCRIPTS)
def test_two_processes_train_together(script, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = EXAMPLES / "accelerate_configs" / "two_cpu_processes.yaml"
    launcher = ["-m", "accelerate.commands.launch", "--config_file", config, "--main_process_port", port]
    done = call(command(script, *SMALL, *THREE_EPOCHS, launcher=launcher), tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^World size (\d+) \| .* \| global batch (\d+) ", done.stdout, re.MULTILINE) == [("2", "64")]
    rows = rows_of(done.stdout)
    assert rows["samples backpropagated"] == [str(TRAINED), "360"]
    assert rows[TITLE[script]][0] == shown(script, results(tmp_path / OUTPUT[script])[SCORE[script]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            [TOKENS, "--text_column_name", "text", "--label_column_name", "label"],
            r"the column 'label' holds Value\('(large_)?string'\); a list of tags was expected",
        ),
        (
            [QUESTIONS],
            "The data has no column 'question'; it has: text, summary, label. Name the right one with",
        ),
        ([TEXTS, "--text_column", "english"], "The data has no column 'english'; .* with --text_column."),
        ([TEXTS, "--train_file", "a.xls"], "'a.xls' is of none of the kinds that are read: .csv, .json, .jsonl, .txt"),
        ([NUMBERS], r"the column 'label' holds Value\('(large_)?string'\); a number was expected"),
    ],
)
def test_wrong_data_end_with_a_message(options, message, last_words, tmp_path, monkeypatch):
    (tmp_path / "texts.csv").write_text("text,summary,label\n" + "good,better,best\n" * 10, encoding="utf-8")
    script, *options = options
    monkeypatch.chdir(tmp_path)
    assert re.search(f"^{script}: error: .*{message}", last_words(script, "--train_file", "texts.csv", *options))
    assert not (tmp_path / "out").exists()


# ---- Parts ----


def test_the_first_piece_of_a_word_has_its_tag(example):
    align = example("token_classification").align
    words = [None, 0, 0, 1, 2, 2, None]
    assert align([5, 6, 7], words, all_pieces=False) == [-100, 5, -100, 6, 7, -100, -100]
    assert align([5, 6, 7], words, all_pieces=True) == [-100, 5, 5, 6, 7, 7, -100]
    # The last word was cut off.
    assert align([5, 6, 7], [None, 0, 1, None], all_pieces=False) == [-100, 5, 6, -100]


def test_lines_are_highlighted(example, tmp_path):
    module = example("token_classification")
    file = tmp_path / "some.py"
    file.write_text(
        'import os\n\n@cache\ndef name(x):  # why\n    """A\n    text."""\n    return len(x.y) + os.z(1, "s")\n',
        encoding="utf-8",
    )
    found = [
        list(zip((token.string for token in line), module._kinds(line), strict=True)) for line in module._lines(file)
    ]
    assert found == [
        [("import", "keyword"), ("os", "name")],
        [("@", "op"), ("cache", "name")],
        [
            *(("def", "keyword"), ("name", "function"), ("(", "op"), ("x", "name"), (")", "op"), (":", "op")),
            ("# why", "comment"),
        ],
        [
            *(("return", "keyword"), ("len", "builtin"), ("(", "op"), ("x", "name"), (".", "op"), ("y", "attribute")),
            *((")", "op"), ("+", "op"), ("os", "name"), (".", "op"), ("z", "method"), ("(", "op"), ("1", "number")),
            *((",", "op"), ('"s"', "string"), (")", "op")),
        ],
    ]


def test_what_is_found_is_what_was_located(example):
    module = example("question_answering")
    # [CLS] question [SEP] and the context "def f(a, b='x')" in pieces, [SEP].
    offsets = [None, None, None, (0, 3), (4, 5), (5, 6), (6, 7), (7, 8), (9, 10), (10, 11), (11, 14), (14, 15), None]
    start, end = module.locate({"text": ["b='x'"], "answer_start": [9]}, offsets)
    assert (start, end) == (8, 10)
    logits = np.zeros((2, len(offsets)), np.float32)
    logits[0, [0, start]], logits[1, [0, end]] = (9, 5), (9, 5)
    # [CLS] has the highest logits, and is no part of the context.
    assert module.best_span(*logits, offsets, longest=3) == (9, 14)
    assert module.best_span(*logits, offsets, longest=2) != (9, 14)
    assert module.best_span(*logits, offsets, longest=3, may_be_none=True) == (0, 0)
    logits[:, 0] = 4
    assert module.best_span(*logits, offsets, longest=3, may_be_none=True) == (9, 14)
    assert module.locate({"text": [], "answer_start": []}, offsets) == (0, 0)
    assert module.locate({"text": ["')"], "answer_start": [13]}, offsets[:-2]) == (0, 0)
    assert module.best_span(*logits[:, :3], [None, None, None], longest=3) == (0, 0)


def test_the_questions_have_their_answers(example):
    function = example("_text").Function("m.f", "def f(a, b=(1, 2), *, c='x')", "Does.\n\nMore.")
    rows = list(example("question_answering")._questions(function))
    assert [(row["question"], *row["answers"]["text"]) for row in rows] == [
        ("What is the default of b?", "(1, 2)"),
        ("What is the default of c?", "'x'"),
        ("Which argument comes after a?", "b"),
    ]
    for row in rows:
        [text], [start] = row["answers"].values()
        assert row["context"] == "def f(a, b=(1, 2), *, c='x'): Does."
        assert row["context"][start:].startswith(text)


def test_figures_of_answers(example):
    module = example("question_answering")
    assert module.exact_match(" a  b", "a b") == 1
    assert module.exact_match("a", "a b") == 0
    assert module.overlap("a b", "a b") == 1
    assert module.overlap("a b c", "a b d") == pytest.approx(2 / 3)
    assert module.overlap("a", "b") == module.overlap("", "b") == 0
    assert module.overlap("", "") == 1


def test_dates_are_read_back(example):
    module = example("seq2seq")
    assert [module.ordinal(day) for day in (1, 2, 3, 4, 11, 12, 13, 21, 22, 23, 30)] == [
        *("1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "22nd", "23rd", "30th")
    ]
    dates = module.dates()
    assert dates["text"] == module.dates()["text"]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", text) for text in dates["summary"])
    assert all(text[2:4] in written for text, written in zip(dates["summary"], dates["text"], strict=True))


def test_complexity_counts_where_the_way_forks(example):
    module = example("regression")
    counted = {
        "def f(): pass": 1,
        "def f(a):\n if a: return 1\n elif a > 1 and a < 3: return 2": 4,
        "def f(a):\n for b in a:\n  while b: b -= 1\n return [c for c in a if c or not c]": 5,
        "def f():\n try: g()\n except ValueError: pass\n except KeyError: pass": 3,
        "def f(a):\n match a:\n  case 1: pass\n  case _: pass": 3,
    }
    found = {source: module.complexity(module.ast.parse(source).body[0]) for source in counted}
    assert found == counted


def test_a_byte_level_tokenizer_reads_back_what_it_was_given(example):
    tokenizer = example("_text").train_byte_level_tokenizer(["some text", "and more"], 50, add_eos=True)
    text = "def  f(a=3):\n\treturn 'é — 象'"
    tokens = tokenizer(text)["input_ids"]
    assert tokens[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(tokens, skip_special_tokens=True) == text


def test_a_score_that_is_computed_and_one_that_falls(example):
    table = example("_table")
    score = table.Score("perplexity", "eval_perplexity", percent=False, lower_is_better=True)
    outcomes = [
        table.Outcome(title, value, 75, 100, 20, 61.54, spread)
        for title, value, spread in (("with hiding", 1234.5678, 0.123), ("without hiding", None, None))
    ]
    lines = table.format_table(outcomes, score).splitlines()
    assert lines[2].split() == ["perplexity", "(lower", "is", "better)", "1,235", "-"]
    assert re.split(r"\s{2,}", lines[5]) == ["wall time", "61.5 s ± 12%", "61.5 s ± ?"]
    assert {len(line) for line in lines[:-2]} == {len(lines[1])}
    assert lines[-2] == "25.0% fewer samples backpropagated, 5.0% fewer forward passes."
    assert max(map(len, lines)) <= 80
    assert json.dumps(table.Score("accuracy", "eval_accuracy").row([0.5])) == '["accuracy", "50.00%"]'


def test_the_spread_is_that_of_the_times_per_step(example, monkeypatch):
    """Epochs of 4, 2 and 0 steps, the last steps of which end 8, 5 and 0 seconds after they began."""
    table = example("_table")
    now = iter([0.0, 3.0, 8.0, 100.0, 105.0, 200.0])
    monkeypatch.setattr(table.time, "perf_counter", lambda: next(now))
    pace = table.Pace()
    assert pace.spread is None
    state = transformers.TrainerState()
    for steps, ends in ((4, 2), (2, 1), (0, 0)):
        pace.on_epoch_begin(None, state, None)
        state.global_step += steps
        for _ in range(ends):
            pace.on_step_end(None, state, None)
        pace.on_epoch_end(None, state, None)
    # 2 and 2.5 seconds a step: mean 2.25, deviation 0.5 / √2.
    assert pace.spread == pytest.approx(0.5 / 2**0.5 / 2.25)
