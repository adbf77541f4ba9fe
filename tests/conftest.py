"""What holds for all tests."""

import torch
from hypothesis import settings

# The same examples in every run: a failure can be repeated.
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.load_profile("fixed")

# Networks as small as those here only wait for a second thread.
torch.set_num_threads(1)

# Once a trainer is freed, PyTorch waits so many seconds for each persistent worker of its loaders that still holds a
# batch (pytorch/pytorch#81794), with `Trainer` as well: at 5, the tests wait for minutes.
torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL = 0.2
