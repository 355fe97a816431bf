"""A stage: a step of a run whose result is stored once and shared by every run that needs the same one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from kbench.config.identity import digest

# build(work folder, parents' folders by name): writes the result into the work folder. The folder outlives a killed
# build, so a long one may continue from what it finds there.
Build = Callable[[Path, Mapping[str, Path]], None]


@dataclass(frozen=True)
class Stage:
    """One stage: what it is made of, and how.

    Attributes:
        name: kind of stage, the folder under `stages/`.
        version: raised when a change of code changes the result.
        science: plain JSON values that decide the result.
        build: makes it.
        alone: the main process makes it while the others wait; otherwise all make it together.
        parents: stages it is made from, by the name `build` knows them by.
    """

    name: str
    version: int
    science: Mapping[str, Any]
    build: Build = field(compare=False, repr=False)
    parents: Mapping[str, Stage] = field(default_factory=dict)
    alone: bool = False

    @cached_property
    def key(self) -> str:
        """Hash of the science, the version and the parents' keys: 16 hexadecimal digits."""
        return digest(
            {
                "name": self.name,
                "version": self.version,
                "science": self.science,
                "parents": {name: parent.key for name, parent in self.parents.items()},
            }
        )[:16]
