"""The fraction of right predictions: `evaluate.load("accuracy")` without the network that this name needs."""

import datasets
import evaluate
import numpy as np


class Accuracy(evaluate.Metric):
    """The fraction of right predictions."""

    def _info(self) -> evaluate.MetricInfo:
        classes = datasets.Value("int64")
        return evaluate.MetricInfo(
            description="The fraction of right predictions.",
            citation="",
            inputs_description="predictions: the predicted classes. references: the right ones.",
            features=datasets.Features({"predictions": classes, "references": classes}),
        )

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        return {"accuracy": float(np.mean(np.equal(predictions, references)))}
