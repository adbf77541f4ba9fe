"""Which rule measures a batch: by what the model was made for, by what it returned, never by a guess."""

import warnings
from types import SimpleNamespace

import pytest
import torch
import transformers
from torch import nn
from torch.nn import functional
from transformers.modeling_outputs import SequenceClassifierOutput

from hf_kakurenbo.hiding import (
    Recorder,
    SampleStatistics,
    StatisticsMatcher,
    multi_label_statistics,
    regression_statistics,
    single_label_statistics,
    soft_label_statistics,
    token_statistics,
)
from hf_kakurenbo.hiding.statistics import TASKS, Prediction
from hf_kakurenbo.trainer.task_detection import make_matcher, tasks_of

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = 3 * torch.randn(32, 7, generator=GENERATOR)
LABELS = torch.randint(0, 7, (32,), generator=GENERATOR)
SOFT = torch.rand(32, 7, generator=GENERATOR).softmax(dim=1)
TOKEN_LOGITS = 3 * torch.randn(6, 11, 13, generator=GENERATOR)
TOKEN_LABELS = torch.randint(0, 13, (6, 11), generator=GENERATOR)


def measured(outputs, inputs, num_samples=None, **options):
    found = StatisticsMatcher(**options)(outputs, inputs, num_samples)
    return found if isinstance(found, SampleStatistics) else found.rule(found.logits, found.labels)


def assert_same(found, expected):
    assert all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    "outputs",
    [
        {"loss": torch.tensor(1.0), "logits": LOGITS},
        SequenceClassifierOutput(loss=torch.tensor(1.0), logits=LOGITS),
        (torch.tensor(1.0), LOGITS),
        (LOGITS, torch.ones(32, 4)),
        LOGITS,
        SimpleNamespace(logits=LOGITS),
    ],
    ids=["dict", "ModelOutput", "tuple with a loss", "tuple without", "tensor", "object"],
)
@pytest.mark.parametrize("labels", [LABELS, LABELS.unsqueeze(1), SOFT], ids=["(B,)", "(B, 1)", "soft"])
def test_classification_is_found_in_whatever_was_returned(outputs, labels):
    rule = soft_label_statistics if labels is SOFT else single_label_statistics
    assert_same(measured(outputs, {"labels": labels}), rule(LOGITS, labels))


def test_the_labels_are_found_by_name():
    found = StatisticsMatcher(label_names=["labels", "target"])(LOGITS, {"target": LABELS})
    assert found.labels is LABELS


SEVERAL = (torch.rand(32, 7, generator=GENERATOR) < 0.4).float()
NUMBERS = torch.randn(32, generator=GENERATOR)


@pytest.mark.parametrize(
    ("logits", "labels", "loss", "expected"),
    [
        (LOGITS, SEVERAL, functional.binary_cross_entropy_with_logits(LOGITS, SEVERAL), multi_label_statistics),
        (LOGITS, SEVERAL, functional.mse_loss(LOGITS, SEVERAL), regression_statistics),
        (LOGITS, SOFT, functional.cross_entropy(LOGITS, SOFT), soft_label_statistics),
        (LOGITS, SOFT, functional.binary_cross_entropy_with_logits(LOGITS, SOFT), multi_label_statistics),
        (LOGITS[:, :1], NUMBERS, functional.mse_loss(LOGITS[:, 0], NUMBERS), regression_statistics),
        (TOKEN_LOGITS, TOKEN_LABELS, functional.cross_entropy(TOKEN_LOGITS.mT, TOKEN_LABELS), token_statistics),
        (
            TOKEN_LOGITS,
            TOKEN_LABELS,
            functional.cross_entropy(TOKEN_LOGITS[:, :-1].mT, TOKEN_LABELS[:, 1:]),
            lambda logits, labels: token_statistics(logits, labels, shift=True),
        ),
    ],
    ids=["several labels", "numbers", "soft labels", "soft labels, one by one", "a number", "tokens", "causal tokens"],
)
def test_where_shapes_leave_a_choice_the_models_own_loss_decides(logits, labels, loss, expected):
    found = measured({"loss": loss, "logits": logits}, {"labels": labels})
    assert_same(found, expected(logits, labels))


@pytest.mark.parametrize(
    ("outputs", "labels", "said"),
    [
        ({"logits": LOGITS}, SEVERAL, "soft_label_classification, multi_label_classification, regression"),
        ({"loss": torch.tensor(5.0), "logits": LOGITS}, SEVERAL, "its loss is that of none"),
        ({"logits": TOKEN_LOGITS}, TOKEN_LABELS, "token_classification, causal_language_modeling"),
        ({"loss": torch.tensor(9.0), "logits": TOKEN_LOGITS}, TOKEN_LABELS, 'statistics_fn="causal_language_modeling"'),
    ],
    ids=["no loss", "another loss", "tokens without a loss", "tokens with another loss"],
)
def test_where_nothing_decides_the_user_is_asked(outputs, labels, said):
    with pytest.raises(ValueError, match=rf"(?s)Several built-in rules fit.*{said}"):
        measured(outputs, {"labels": labels})


@pytest.mark.parametrize("task", ["token_classification", "causal_language_modeling"])
def test_the_users_word_decides(task):
    found = measured(TOKEN_LOGITS, {"labels": TOKEN_LABELS}, tasks=[task])
    assert_same(found, token_statistics(TOKEN_LOGITS, TOKEN_LABELS, shift=task.startswith("causal")))


def test_labels_that_are_shifted_already_stay_where_they_are():
    inputs = {"labels": TOKEN_LABELS, "shift_labels": TOKEN_LABELS.roll(-1, dims=1)}
    found = measured(TOKEN_LOGITS, inputs, tasks=["causal_language_modeling"])
    assert_same(found, token_statistics(TOKEN_LOGITS, inputs["shift_labels"]))


@pytest.mark.parametrize("outputs", ["ModelOutput", "tuple"])
def test_spans_are_no_tokens(outputs):
    start, end = torch.randn(2, 6, 11, generator=GENERATOR)
    inputs = {"start_positions": torch.arange(6), "end_positions": torch.arange(6) + 2}
    returned = (
        {"start_logits": start, "end_logits": end} if outputs == "ModelOutput" else (torch.tensor(1.0), start, end)
    )
    found = measured(returned, inputs, label_names=["start_positions", "end_positions"])
    expected = [functional.cross_entropy(start, inputs["start_positions"], reduction="none")]
    expected.append(functional.cross_entropy(end, inputs["end_positions"], reduction="none"))
    torch.testing.assert_close(found.loss, torch.stack(expected).mean(0))
    # Two tokens with a class each have the same shapes.
    assert measured(
        TOKEN_LOGITS[:, :2], {"labels": TOKEN_LABELS[:, :2]}, tasks=["token_classification"]
    ).loss.shape == (6,)


SAMPLE_OF_TOKEN = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2, 2, 2])


@pytest.mark.parametrize("shifted", [False, True], ids=["labels", "shift_labels"])
def test_samples_end_to_end_are_told_apart(shifted):
    match = StatisticsMatcher(["causal_language_modeling"])
    inputs = {"labels": TOKEN_LABELS[:1].clone()}
    if shifted:
        inputs["shift_labels"] = TOKEN_LABELS[:1].roll(-1, dims=1)
        inputs["shift_labels"][0, [2, 4, 10]] = -100
    found = match(TOKEN_LOGITS[:1], inputs, 3, SAMPLE_OF_TOKEN)
    for sample, places in enumerate([slice(0, 3), slice(3, 5), slice(5, 11)]):
        alone = token_statistics(TOKEN_LOGITS[:1, places], TOKEN_LABELS[:1, places], shift=True)
        torch.testing.assert_close(found.loss[sample], alone.loss[0])
    # One sample is what its row is, whatever is packed in it.
    row = match(TOKEN_LOGITS[:1], {"labels": TOKEN_LABELS[:1]}, 1)
    assert_same(row.rule(row.logits, row.labels), token_statistics(TOKEN_LOGITS[:1], TOKEN_LABELS[:1], shift=True))


def test_samples_end_to_end_of_which_nothing_says_where_they_begin():
    with pytest.raises(ValueError, match=r"has 3 samples and one row of logits.*per_device_train_batch_size=1"):
        StatisticsMatcher(["causal_language_modeling"])(TOKEN_LOGITS[:1], {"labels": TOKEN_LABELS[:1]}, 3)


@pytest.mark.parametrize(
    ("outputs", "labels", "tasks"),
    [
        ({"logits": LOGITS}, SOFT, ["question_answering"]),
        ({"logits": LOGITS.unsqueeze(1)}, LABELS, list(TASKS)),
        ({"logits": LOGITS}, LABELS[:5], list(TASKS)),
        ({"logits": LOGITS}, SOFT[:, :3], list(TASKS)),
        ({"logits": LOGITS}, LABELS.tolist(), list(TASKS)),
        ({"logits": LOGITS}, LABELS, ["regression"]),
    ],
    ids=["another task", "dimensions", "lengths", "classes", "a list", "not its task"],
)
def test_a_batch_that_no_rule_fits(outputs, labels, tasks):
    with pytest.raises(ValueError, match=r"(?s)No built-in rule.*The model returned dict.*def my_statistics"):
        measured(outputs, {"labels": labels}, tasks=tasks)


@pytest.mark.parametrize(
    ("fused", "reason"),
    [(True, r"no logits among it.*use_liger_kernel=False"), (False, r"no predictions among it")],
    ids=["asked for", "not asked for"],
)
def test_a_fused_loss_is_named_only_where_it_was_asked_for(fused, reason):
    with pytest.raises(ValueError, match=rf"(?s){reason}.*hiding_policy=\"none\"") as refused:
        StatisticsMatcher(fused=fused)({"loss": torch.tensor(1.0), "logits": None}, {"labels": LABELS})
    assert ("liger" in str(refused.value)) is fused


def test_logits_of_another_length_than_the_labels():
    with pytest.raises(ValueError, match=r"(?s)The logits have 11 places and the labels 9.*prompt tuning"):
        measured(TOKEN_LOGITS, {"labels": TOKEN_LABELS[:, :9]})


def test_no_labels():
    with pytest.raises(
        ValueError, match=r"(?s)no labels.*Looked for 'labels' in a batch of dict\(x: \(32, 7\) float32\)"
    ):
        measured(LOGITS, {"x": LOGITS})


def test_what_fitted_the_last_batch_is_not_forced_on_the_next():
    match = StatisticsMatcher(label_names=["labels", "target"])
    for outputs, inputs, rule in [
        ({"logits": LOGITS}, {"labels": LABELS}, single_label_statistics),
        ({"logits": LOGITS[:2]}, {"labels": LABELS[:2]}, single_label_statistics),
        ({"logits": LOGITS}, {"labels": SOFT}, soft_label_statistics),
        ((LOGITS,), {"target": LABELS}, single_label_statistics),
        ({"logits": LOGITS}, {"target": LABELS}, single_label_statistics),
    ]:
        assert match(outputs, inputs).rule is rule
    with pytest.raises(ValueError, match="The batch has no labels"):
        match({"logits": LOGITS}, {})
    with pytest.raises(ValueError, match="No built-in rule"):
        match({"loss": LOGITS.sum()}, {"labels": LABELS})


# ---- What models are made for ----

SIZES = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8, "vocab_size": 20}


def of_class(name, config=None):
    """A model of which only the name of the class and the configuration are known."""
    return type(name, (nn.Module,), {"config": config})()


@pytest.mark.parametrize(
    ("name", "tasks"),
    [
        ("BertForTokenClassification", ["token_classification"]),
        ("BertForMaskedLM", ["token_classification"]),
        ("BertLMHeadModel", ["causal_language_modeling"]),
        ("GPT2LMHeadModel", ["causal_language_modeling"]),
        ("LlamaForCausalLM", ["causal_language_modeling"]),
        ("SomeRemoteCodeForCausalLM", ["causal_language_modeling"]),
        ("XLMWithLMHeadModel", ["token_classification", "causal_language_modeling"]),
        ("LlavaForConditionalGeneration", ["causal_language_modeling"]),
        ("BertForQuestionAnswering", ["question_answering"]),
        ("SegformerForSemanticSegmentation", ["semantic_segmentation"]),
        ("BertForMultipleChoice", ["single_label_classification"]),
        ("BertForSequenceClassification", ["single_label_classification"]),
        ("ViTForImageClassification", ["single_label_classification"]),
    ],
)
def test_the_class_of_a_model_says_its_task(name, tasks):
    assert list(tasks_of(of_class(name)))[: len(tasks)] == tasks
    if name not in ("BertForQuestionAnswering", "BertForSequenceClassification", "ViTForImageClassification"):
        assert len(tasks_of(of_class(name))) == len(tasks)


@pytest.mark.parametrize(
    ("config", "tasks"),
    [
        ({"problem_type": "regression"}, ("regression",)),
        ({"problem_type": "multi_label_classification"}, ("multi_label_classification",)),
        ({"problem_type": None, "num_labels": 1}, ("regression",)),
        ({"is_encoder_decoder": True}, ("token_classification",)),
        ({}, tuple(TASKS)),
    ],
    ids=str,
)
def test_the_configuration_of_a_model_says_its_task(config, tasks):
    name = "BertForSequenceClassification" if "problem_type" in config else "T5ForConditionalGeneration"
    assert tasks_of(of_class(name if config else "Anything", SimpleNamespace(**config))) == tasks


def test_a_model_of_your_own_may_be_any():
    assert tasks_of(nn.Linear(2, 2)) == tuple(TASKS)


def test_adapters_and_compiled_models_are_seen_through():
    peft = pytest.importorskip("peft")
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]))
    for wrapped in (adapted, torch.compile(model), torch.compile(adapted)):
        assert make_matcher(wrapped, None, ["labels"], 0.9).tasks == ("causal_language_modeling",)


def test_the_ignored_label_of_a_segmentation_is_the_models():
    config = transformers.SegformerConfig(num_labels=5)
    match = make_matcher(of_class("SegformerForSemanticSegmentation", config), None, ["labels"], 0.9)
    found = match({"logits": torch.randn(2, 5, 4, 4)}, {"labels": torch.full((2, 8, 8), 255)})
    assert bool(found.rule(found.logits, found.labels).loss.isnan().all())


# ---- What waits in the recorder ----


@pytest.mark.parametrize("labels", [LABELS, SOFT], ids=["hard", "soft"])
def test_together_or_one_by_one_is_the_same(labels, monkeypatch):
    rule = single_label_statistics if labels is LABELS else soft_label_statistics
    gathered = []
    for waiting in (0, 100, 2**18):
        monkeypatch.setattr(Recorder, "_WAITING_ELEMENTS", waiting)
        recorder = Recorder()
        for ids in torch.arange(32).split(5):
            recorder.add_prediction(ids, Prediction(rule, LOGITS[ids], labels[ids]))
        gathered.append(recorder.gathered())
    for ids, figures in gathered:
        assert torch.equal(ids, torch.arange(32))
        assert torch.equal(figures, gathered[0].statistics)


def test_what_waits_is_a_copy_and_keeps_its_place():
    recorder, logits = Recorder(), LOGITS[:4].clone()
    recorder.add_prediction(torch.arange(4), Prediction(single_label_statistics, logits, LABELS[:4]))
    logits.zero_()
    recorder.add_prediction(torch.arange(4), Prediction(soft_label_statistics, LOGITS[4:8], SOFT[4:8]))
    recorder.add(torch.arange(2), single_label_statistics(LOGITS[:2], LABELS[:2]))
    ids, figures = recorder.gathered()
    assert ids.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    torch.testing.assert_close(figures[:4, 0], functional.cross_entropy(LOGITS[:4], LABELS[:4], reduction="none"))
    torch.testing.assert_close(figures[:2], figures[-2:])


def test_no_more_small_batches_wait_than_a_device_has_room_for(monkeypatch):
    """Each takes a kilobyte and a half of a GPU, however few logits it has."""
    monkeypatch.setattr(Recorder, "_WAITING_BATCHES", 10)
    recorder, most = Recorder(), 0
    for index in range(25):
        batch = Prediction(single_label_statistics, torch.tensor([[2.0, 0.0]]), torch.tensor([index % 2]))
        recorder.add_prediction(torch.tensor([index]), batch)
        most = max(most, len(recorder._waiting))
    assert most == 9
    measured = recorder.gathered()
    assert measured.ids.tolist() == list(range(25))
    assert measured.correct.tolist() == [index % 2 == 0 for index in range(25)]


def test_batches_of_other_lengths_do_not_wait_together():
    recorder = Recorder()
    for start, length in ((0, 11), (2, 11), (4, 9)):
        ids = torch.arange(start, start + 2)
        recorder.add_prediction(
            ids, Prediction(token_statistics, TOKEN_LOGITS[ids, :length], TOKEN_LABELS[ids, :length])
        )
    ids, figures = recorder.gathered()
    assert ids.tolist() == list(range(6))
    expected = token_statistics(TOKEN_LOGITS[4:, :9], TOKEN_LABELS[4:, :9])
    torch.testing.assert_close(figures[4:, 0], expected.loss)


def test_a_batch_of_two_lengths():
    with pytest.raises(ValueError, match=r"The batch has 3 samples, but its logits are \(4, 7\) float32"):
        Recorder().add_prediction(torch.arange(3), Prediction(single_label_statistics, LOGITS[:4], LABELS[:4]))
