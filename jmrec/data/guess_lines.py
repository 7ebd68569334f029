"""How `jmrec data init` writes a table of ``dataset.toml``: lines, each with its reason."""

import json
from dataclasses import dataclass, field
from typing import Any

NOTE = "# Note: "
"""How a line begins that one has to read."""


@dataclass
class Lines:
    """One table of the description: lines of TOML, each below the comment that explains it."""

    lines: list[str] = field(default_factory=list)

    def say(self, key: str, value: Any, why: str) -> None:
        """Add ``key = value``, explained."""
        # A JSON string is a TOML string, but for DEL, which no column name may hold.
        self.lines += [f"# {why}", f"{key} = {json.dumps(value, ensure_ascii=False)}"]

    def idle(self, key: str, example: Any, why: str) -> None:
        """Add a line that is commented out, explained."""
        self.lines += [f"# {why}", f"# {key} = {json.dumps(example, ensure_ascii=False)}"]

    def note(self, sentence: str) -> None:
        """Add what `jmrec data init` also prints."""
        self.lines.append(f"{NOTE}{sentence}")
