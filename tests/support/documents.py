"""The examples of the documents, to be run."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def example(word: str) -> str:
    """Return the one Python example of README.md that has this word."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (found,) = (block for block in blocks if word in block)
    return str(found)
