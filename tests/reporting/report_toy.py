"""A page as a browser's parser sees it, and trainings over tables that a report can show."""

from html.parser import HTMLParser

import datasets
import numpy as np
import torch
from PIL import Image

from toy import NUM_CLASSES, NUM_FEATURES, make_trainer, samples

NAMES = ["apple", "birch", "cedar", "dogwood"]
_VOID = {"meta", "img", "br", "link", "hr", "input"}


class Page(HTMLParser):
    """Elements as (name, attributes), the text of each heading, all text; raises where tags do not match."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.text, self._open, self.headings = [], "", [], []
        self.feed(html)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)
        if tag in ("h1", "h2", "h3"):
            self.headings.append([tag, ""])

    def handle_endtag(self, tag):
        assert self._open.pop() == tag, tag

    def handle_data(self, data):
        self.text += data
        if self._open and self._open[-1] in ("h1", "h2", "h3"):
            self.headings[-1][1] += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def titles(self):
        return [text for _, text in self.headings]


def read(path):
    return Page(path.read_text(encoding="utf-8"))


def pictures(count=203, seed=0):
    """The toy samples as a table with images, classes and texts."""
    toys = samples(count, seed)
    images = [Image.fromarray(np.uint8(128 + 30 * sample["x"].numpy().clip(-4, 4)).reshape(4, 4)) for sample in toys]
    rows = {
        "image": images,
        "x": [sample["x"].tolist() for sample in toys],
        "labels": [int(sample["labels"]) for sample in toys],
        "caption": [f"caption {place} of {seed} <b>bold</b> & https://example.org/{place}" for place in range(count)],
    }
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "x": datasets.List(datasets.Value("float32"), length=NUM_FEATURES),
            "labels": datasets.ClassLabel(names=NAMES),
            "caption": datasets.Value("string"),
        }
    )
    return datasets.Dataset.from_dict(rows, features=features)


def collate(rows):
    return {
        "x": torch.tensor([row["x"] for row in rows]),
        "labels": torch.tensor([row["labels"] for row in rows]),
    }


def trainer_of_pictures(folder, **options):
    defaults = {"learning_rate": 0.05, "num_train_epochs": 6, "ledger_history": True, "remove_unused_columns": False}
    given = {"data_collator": collate, **options.pop("trainer_options", {})}
    return make_trainer(folder, dataset=pictures(), trainer_options=given, **{**defaults, **options})


assert len(NAMES) == NUM_CLASSES
