"""What was hidden, for people: tables, figures and a report of one file that opens without a network."""

from .report import write_report
from .runs import TrainedRun, read_run

__all__ = ["TrainedRun", "read_run", "write_report"]
