"""Errors a user can mend, and the words in which kbench says so.

A `UserError` ends the command with exit code 2 and no traceback. It carries one or more problems; each
names where it was found, what is wrong and the way out.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass

EXIT_MISTAKE = 2
EXIT_FAILED = 1
EXIT_INTERRUPTED = 130

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class Problem:
    """One mistake: `where` (an override, a key, a file and line), `what` is wrong, and the `hint` out of it."""

    where: str
    what: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f" ({self.hint})" if self.hint else "")


class UserError(Exception):
    """A mistake or an absent thing that the user can mend; holds every problem found."""

    title = "problem"

    def __init__(self, *problems: Problem | str):
        self.problems: list[Problem] = [p if isinstance(p, Problem) else Problem("", p) for p in problems]
        super().__init__(self.render())

    def render(self) -> str:
        """The lines shown to the user, without the leading `error:`."""
        return render(self.problems, self.title)


class ConfigError(UserError):
    """The configuration holds a mistake."""

    title = "problem in the configuration"


class DataError(UserError):
    """A data set is absent or its files are not what they should be."""

    title = "problem in the data"


class BackboneError(UserError):
    """A model or tokenizer is absent or not what it should be."""

    title = "problem with the backbone"


class StageError(UserError):
    """A stage could not be written or read."""

    title = "problem with a stage"


class DivergedError(UserError):
    """The loss is no longer a number."""

    title = "run that diverged"


class InterruptedRunError(Exception):
    """The run was asked to stop and has saved its state."""


def render(problems: Sequence[Problem], title: str) -> str:
    """Align the problems under a head line: a single bare message stays a line of its own."""
    if len(problems) == 1 and not problems[0].where:
        only = problems[0]
        return only.what + (f"\n  {only.hint}" if only.hint else "")
    noun = title if len(problems) == 1 else title.replace("problem", "problems", 1)
    width = min(max((len(p.where) for p in problems), default=0), 44)
    lines = [f"{len(problems)} {noun}"]
    for problem in problems:
        lines.append(f"  {problem.where:<{width}}  {problem.what}".rstrip())
        lines.extend(" " * (width + 4) + line for line in problem.hint.splitlines())
    return "\n".join(lines)


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, or one that caused it, says that nothing more can be written.

    safetensors raises its own class with the system's text in it, hence the look at the message.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _DISK_FULL:
            return True
        text = str(seen)
        if "No space left" in text or "File too large" in text or "quota exceeded" in text:
            return True
        seen = seen.__cause__ or seen.__context__
    return False
