"""The `kbench` command: a first word without `=` is a verb, everything else is Hydra's. No torch here."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from kbench import __version__, registry
from kbench.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_MISTAKE, StageError, UserError, is_disk_full

# verb -> what it does; each is a module of this package with `run(arguments) -> exit code`
VERBS = {
    "reproduce": "a published table: make the runs that are missing, print ours beside the paper's",
    "report": "the same table from what is in outputs/, making nothing",
    "ls": "what there is: methods, data, backbones, knowledge, tables, train, hardware, trackers",
    "show": "one of them in full: idea, options, values and their sources",
    "build": "data made of a knowledge graph: its questions (XLR), its samples, names from a Wikidata dump",
    "export": "a pre-trained checkpoint as a folder of its own, which transformers loads",
    "fetch": "bring data and backbones to this machine's cache, where there is internet",
    "doctor": "devices, caches, versions; what is missing and the command that mends it",
}

HELP = f"""kbench {__version__}: run knowledge-enhanced language-model methods and compare them with their papers

  kbench method=muki data=toy                           one run: no download, under a minute
  kbench -m method=muki,vanilla_kd data=toy seed=1,2    a sweep: what is done is not done again
  kbench reproduce muki/table1                          a published table, ours beside the paper's

verbs
{{verbs}}
`kbench VERB --help` says more.

configuration, as GROUP=CHOICE
{{groups}}
and KEY=VALUE for any key (kbench show method muki; kbench --cfg job shows all): seed=2, train.lr=1e-5, method.tau=0.5

flags, Hydra's own
  -m                        several values, separated by commas, make a sweep
  --cfg job                 print the composed configuration and run nothing
  --info                    how Hydra composed it
  --hydra-help              all of them, launchers and shell completion included
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; gives the exit code: 0, 1 (a run failed), 2 (a mistake), 130 (interrupted)."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(words)
    except UserError as error:
        if os.environ.get("KBENCH_DEBUG"):
            raise
        print(f"error: {error.render()}", file=sys.stderr)
        return EXIT_FAILED if isinstance(error, StageError) else EXIT_MISTAKE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # the reader of a pipe has gone: nothing is left to say
        return 0
    except OSError as error:
        if is_disk_full(error):
            print(f"error: the disk is full: {error}\n  free some space and repeat the command", file=sys.stderr)
            return EXIT_FAILED
        raise


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if words[0] == "--version":
        print(__version__)
        return 0
    first = words[0]
    if first.startswith("-") or "=" in first:
        module = importlib.import_module("kbench.cli.run")
        return int(module.run(words))
    if first not in VERBS:
        print(f"error: no such verb: {first}{registry.near(first, VERBS)}", file=sys.stderr)
        print(f"  verbs: {', '.join(VERBS)}; a run is written GROUP=CHOICE, such as method=muki", file=sys.stderr)
        return EXIT_MISTAKE
    module = importlib.import_module(f"kbench.cli.{first}")
    return int(module.run(words[1:]))


def overview() -> str:
    """The help page."""
    verbs = "\n".join(f"  {name:<11} {what}" for name, what in VERBS.items())
    groups = "\n".join(f"  {group:<10} {', '.join(registry.choices(group))}" for group in registry.GROUPS)
    return HELP.format(verbs=verbs, groups=groups)


if __name__ == "__main__":
    sys.exit(main())
