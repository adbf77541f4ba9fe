"""What holds for all tests."""

import torch
from hypothesis import settings

# The same examples in every run: a failure can be repeated.
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.load_profile("fixed")

# Networks as small as those here only wait for a second thread.
torch.set_num_threads(1)
