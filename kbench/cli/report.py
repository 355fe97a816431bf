"""`kbench report`: a published table beside ours, from the results in outputs/; makes no run."""

from __future__ import annotations

from kbench import registry
from kbench.cli.reproduce import both
from kbench.errors import ConfigError


def run(argv: list[str]) -> int:
    """Show a table, or every table where none is named; gives the exit code."""
    if (argv and "=" not in argv[0]) or any(word in ("-h", "--help") for word in argv):
        return both("report", argv, make=False)
    codes = []
    for table in registry.tables():
        try:
            codes.append(both("report", [table, *argv], make=False))
        except ConfigError as error:  # what suits one table need not suit another
            problem = error.problems[0]
            print(f"{table}: {problem.where} {problem.what}\n")
    return max(codes, default=0)
