"""What marks a test that needs a GPU: `pytest -m gpu` runs those, and without a GPU they are skipped."""

import pytest
import torch

NEEDS_GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]
