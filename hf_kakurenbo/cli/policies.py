"""`hf-kakurenbo policies`."""

from __future__ import annotations

from .errors import errors_in_one_line
from .listing import show_entry, summary_of
from .options import Imports


def policies(modules: Imports = None) -> None:
    """List the policies that choose what to hide.

    KakurenboConfig(hiding_policy=...) takes their names; no option but those
    listed has an effect on a policy.
    """
    with errors_in_one_line():
        from ..config import NO_HIDING
        from ..hiding.policies import find_policy, list_policies, options_of_policy

        show_entry(NO_HIDING, "Hide nothing: a plain Trainer.")
        for name in list_policies():
            show_entry(name, summary_of(find_policy(name)), f"Options: {', '.join(options_of_policy(name)) or 'none'}.")
