"""The old place of `hf_kakurenbo.distributed.collectives`; to go in the release after next."""

from ..distributed.collectives import *  # noqa: F403
