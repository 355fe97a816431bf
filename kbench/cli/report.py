"""`kbench report`: a published table beside ours, from the results in outputs/; makes no run."""

from __future__ import annotations

from kbench import registry
from kbench.cli.reproduce import both


def run(argv: list[str]) -> int:
    """Show a table, or every table where none is named; gives the exit code."""
    if (argv and "=" not in argv[0]) or any(word in ("-h", "--help") for word in argv):
        return both("report", argv, make=False)
    return max([both("report", [table, *argv], make=False) for table in registry.tables()], default=0)
