"""The tasks that come with the comparison, apart from its machinery: their data, their models, their arguments."""

from .base import Samples, Splits, Task
from .catalog import TASKS, find_tasks

__all__ = ["TASKS", "Samples", "Splits", "Task", "find_tasks"]
