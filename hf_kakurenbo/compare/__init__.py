"""The comparison of methods under one Trainer: accuracy against time, paired by seed, with compute-matched baselines.

```python
from hf_kakurenbo.compare import compare, find_methods, find_tasks

compare(find_tasks(["digits"]), find_methods(["controls", "field"]), seeds=range(8), output_dir="comparison")
```

The command `hf-kakurenbo compare` is the same. It needs `pip install "hf-kakurenbo[compare]"`.
"""

from .comparison import Comparison, compare
from .methods import METHODS, NO_HIDING, Method, find_methods
from .records import Record
from .tasks import TASKS, Splits, Task, find_tasks

__all__ = [
    "METHODS",
    "NO_HIDING",
    "TASKS",
    "Comparison",
    "Method",
    "Record",
    "Splits",
    "Task",
    "compare",
    "find_methods",
    "find_tasks",
]
