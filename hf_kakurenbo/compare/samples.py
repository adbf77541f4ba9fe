"""What moved to `quiet.py`, under its old address."""

from .quiet import QUIET

__all__ = ["QUIET"]
