"""What the trainer and its loaders rest on in Transformers and Accelerate. A release that moves it fails here."""

import inspect

import pytest
import torch
from accelerate import skip_first_batches
from accelerate.data_loader import DataLoaderDispatcher, DataLoaderShard, IterableDatasetShard, prepare_data_loader
from torch.utils.data import DataLoader, IterableDataset
from transformers import Trainer, TrainerState, TrainingArguments
from transformers.trainer_callback import CallbackHandler, DefaultFlowCallback, ProgressCallback

from hf_kakurenbo.data import skip_sharding
from hf_kakurenbo.trainer.checkpoints import is_marked_as_hiding, mark_as_hiding

PARAMETERS = {
    "_validate_args": [],
    "get_train_dataloader": [],
    "_get_dataloader": ["dataset", "description", "batch_size", "sampler_fn", "is_training", "dataloader_key"],
    "_remove_unused_columns": ["dataset", "description"],
    "_get_collator_with_removed_columns": ["data_collator", "description"],
    "training_step": ["model", "inputs", "num_items_in_batch"],
    "compute_loss": ["model", "inputs", "return_outputs", "num_items_in_batch"],
    "compute_loss_context_manager": [],
    "_hp_search_setup": ["trial"],
    "set_initial_training_values": ["args", "dataloader"],
    "_init_training_state": [
        "max_steps",
        "num_update_steps_per_epoch",
        "num_train_epochs",
        "resume_from_checkpoint",
        "trial",
    ],
    "create_scheduler": ["num_training_steps", "optimizer"],
    "_get_learning_rate": [],
    "_prepare_for_training": ["max_steps", "train_dataloader", "resume_from_checkpoint"],
    "_load_optimizer_and_scheduler": ["checkpoint"],
    "_load_rng_state": ["checkpoint"],
    "_load_from_checkpoint": ["resume_from_checkpoint", "model"],
    "_load_best_model": [],
    "_issue_warnings_after_load": ["load_result"],
    "_run_epoch": [
        "model",
        "epoch",
        "train_dataloader",
        "steps_in_epoch",
        "num_update_steps_per_epoch",
        "trial",
        "ignore_keys_for_eval",
        "start_time",
        "resume_from_checkpoint",
        "epochs_trained",
        "steps_trained_in_current_epoch",
    ],
    "_save_checkpoint": ["model", "trial"],
    "_get_output_dir": ["trial"],
    "_finalize_training": ["trial", "num_train_samples", "start_time"],
    "_prepare_inputs": ["inputs"],
    "_get_num_items_in_batch": ["batch_samples", "device"],
}
USED_ATTRIBUTES = [
    "_tr_loss",
    "_total_loss_scalar",
    "_globalstep_last_logged",
    "_train_batch_size",
    "model_wrapped",
    "label_names",
    "train_dataset",
    "data_collator",
]
USED_ARGUMENTS = [
    "train_sampling_strategy",
    "accelerator_config",
    "ignore_data_skip",
    "n_gpu",
    "max_steps",
    "should_save",
    "data_seed",
    "world_size",
    "dataloader_drop_last",
    "dataloader_num_workers",
]


@pytest.mark.parametrize(("method", "expected"), PARAMETERS.items(), ids=PARAMETERS)
def test_methods_take_what_they_took(method, expected):
    parameters = list(inspect.signature(getattr(Trainer, method)).parameters)
    assert parameters[0] == "self"
    assert parameters[1:] == expected


@pytest.mark.parametrize("name", USED_ATTRIBUTES)
def test_attributes_exist(name):
    assert f"self.{name}" in inspect.getsource(Trainer)


@pytest.mark.parametrize("name", USED_ARGUMENTS)
def test_arguments_exist(tmp_path, name):
    assert hasattr(TrainingArguments(output_dir=str(tmp_path)), name)


@pytest.mark.parametrize(
    ("owner", "source"),
    [
        # The loader is made by `_get_dataloader`, which gives `compute_loss` what the collator returned.
        (Trainer.get_train_dataloader, "self._get_dataloader("),
        (Trainer._get_dataloader, "sampler_fn(dataset)"),
        # A stream gets no sampler and no `drop_last`, and is prepared like any other loader.
        (Trainer._get_dataloader, "if not isinstance(dataset, torch.utils.data.IterableDataset):"),
        (Trainer._get_dataloader, "self.accelerator.prepare(DataLoader(dataset, **dataloader_params))"),
        # A stream with a length is trained by epochs, and its length is asked for after `_validate_args`.
        (Trainer.__init__, "self._validate_args()"),
        (Trainer._validate_args, "has_length(self.train_dataset)"),
        (Trainer.set_initial_training_values, "len(dataloader)"),
        # Batches of a stream that were trained on are asked for and thrown away.
        (Trainer._run_epoch, "skip_first_batches(train_dataloader, steps_trained_in_current_epoch)"),
        # The epoch's figures are handed in by name, and its parts are called in this order.
        (Trainer._inner_training_loop, "steps_in_epoch=steps_in_epoch"),
        (Trainer._inner_training_loop, "steps_trained_in_current_epoch=steps_trained_in_current_epoch"),
        (Trainer._run_epoch, "self.callback_handler.on_epoch_end("),
        # At the beginning of an epoch it would load the generators after our draw, unless it gets no checkpoint.
        (Trainer._run_epoch, "epoch == epochs_trained and resume_from_checkpoint is not None"),
        # `prediction_step` counts the items of a batch that it only looks at, as the refresh does.
        (Trainer.prediction_step, "self._get_num_items_in_batch([inputs]"),
        (Trainer._run_epoch, "self._maybe_log_save_evaluate("),
        (Trainer._prepare_for_training, "self._load_optimizer_and_scheduler(resume_from_checkpoint)"),
        # The state is the last file of a checkpoint that a resumption needs.
        (Trainer._save_checkpoint, "self.state.save_to_json("),
        # The training stops, and the bar ends, at `state.max_steps`.
        (DefaultFlowCallback.on_step_end, "state.global_step >= state.max_steps"),
        (ProgressCallback.on_train_begin, "self.training_bar = tqdm(total=state.max_steps"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_the_course_is_what_it_was(owner, source):
    assert source in inspect.getsource(owner)


ORDERS = [
    # The state is saved after everything that a resumption needs.
    (
        Trainer._save_checkpoint,
        ["save_model(", "_save_optimizer_and_scheduler(", "_save_rng_state(", "save_to_json(", "rotate_checkpoints("],
    ),
    # DeepSpeed's scheduler can be taken before it loads a checkpoint; what Trainer saved of it is loaded afterwards.
    (
        Trainer._prepare_for_training,
        ["self.accelerator.prepare(", "self.create_scheduler(", "deepspeed_load_checkpoint(", "_load_optimizer_and_"],
    ),
    # The rate for the log is asked for between the steps of the optimizer and of the scheduler.
    (Trainer._run_epoch, ["self.optimizer.step()", "self._get_learning_rate()", "self.lr_scheduler.step()"]),
]


@pytest.mark.parametrize(("owner", "order"), ORDERS, ids=lambda value: getattr(value, "__name__", ""))
def test_the_order_is_what_it_was(owner, order):
    body = inspect.getsource(owner)
    places = [body.index(call) for call in order]
    assert places == sorted(places)


def test_an_unknown_entry_of_the_stateful_callbacks_survives(tmp_path):
    state = TrainerState(stateful_callbacks=[])
    state.global_step = 7
    mark_as_hiding(state)
    state.save_to_json(str(tmp_path / "trainer_state.json"))
    assert is_marked_as_hiding(TrainerState.load_from_json(str(tmp_path / "trainer_state.json")))


def test_callbacks_are_a_list_called_in_order():
    handler = CallbackHandler([], None, None, None, None)
    assert isinstance(handler.callbacks, list)


class Numbers(IterableDataset):
    """Numbers that Accelerate would share out, fill up or skip."""

    def __iter__(self):
        yield from range(10)

    def __len__(self):
        return 10


def prepared(**options):
    loader = DataLoader(Numbers(), batch_size=4)
    return prepare_data_loader(loader, torch.device("cpu"), num_processes=2, process_index=1, **options)


def test_a_stream_is_shared_out_by_a_wrapper_that_can_be_told_not_to():
    for split, size in ((False, 4), (True, 2)):
        loader = prepared(split_batches=split, dispatch_batches=False)
        assert type(loader.dataset) is IterableDatasetShard
        assert loader.batch_size == size
        assert len(skip_sharding(loader).dataset) == len(list(loader.dataset)) == 10, "it is not to fill up either"
    assert type(prepared(dispatch_batches=True, put_on_device=True).dataset) is Numbers
    assert type(prepare_data_loader(DataLoader(Numbers()), torch.device("cpu"), 1, 0).dataset) is Numbers


def test_streams_are_dispatched_by_default():
    assert isinstance(prepared(put_on_device=True), DataLoaderDispatcher)
    assert isinstance(prepared(put_on_device=True, dispatch_batches=False), DataLoaderShard)


def test_batches_of_a_stream_are_skipped_by_asking_for_them():
    loader = prepare_data_loader(DataLoader(Numbers(), batch_size=4), torch.device("cpu"), 1, 0)
    assert [batch.tolist() for batch in skip_first_batches(loader, 2)] == [[8, 9]]


@pytest.mark.parametrize(
    ("owner", "source"),
    [
        # A sender fills up the last batch with the first samples that it reads, so these are made again when resumed.
        (DataLoaderDispatcher.__iter__, "first_batch = self.slice_fn("),
        (DataLoaderDispatcher.__iter__, "batch = concatenate([batch, first_batch], dim=0)"),
        (DataLoaderDispatcher._fetch_batches, "for _ in range(self.state.num_processes):"),
        # The epoch reaches the stream once more here, which must not begin another one.
        (DataLoaderShard.__iter__, "self.set_epoch(self.iteration)"),
        (DataLoaderShard.set_epoch, "self.dataset.set_epoch(epoch)"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__qualname__,
)
def test_accelerate_does_what_it_did(owner, source):
    assert source in inspect.getsource(owner)


def test_ranks_have_a_store_for_words():
    """Not public; what a rank that waits for another reads, where it is."""
    from torch.distributed import distributed_c10d

    assert not inspect.signature(distributed_c10d._get_default_store).parameters
