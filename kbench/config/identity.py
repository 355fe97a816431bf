"""What a run is: the hash of everything that can change its numbers.

*Science* is every field not declared as machinery (`kbench.config.keys`), resolved; nodes that the method does not
read (`teacher`, for a method without teachers) are left out, so that changing them makes no new run.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from enum import Enum
from typing import Any

from kbench.config.keys import MACHINERY


def science(node: Any) -> Any:
    """A configuration node as plain JSON values, without its machinery."""
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        return {
            f.name: science(getattr(node, f.name))
            for f in dataclasses.fields(node)
            if not f.metadata.get(MACHINERY, False)
        }
    if isinstance(node, Enum):
        return node.value
    if isinstance(node, Mapping):
        return {str(k): science(v) for k, v in node.items()}
    if isinstance(node, list | tuple):
        return [science(v) for v in node]
    return node


def digest(value: Any) -> str:
    """SHA-256 of plain JSON values, independent of key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def run_science(config: Any, reads: Mapping[str, bool]) -> dict[str, Any]:
    """The science of a run without its seed. `reads` says which optional nodes the method reads."""
    found: dict[str, Any] = science(config)
    found.pop("seed")
    for node, is_read in reads.items():
        if not is_read:
            found.pop(node)
    return found
