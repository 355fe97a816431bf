"""How a configuration field is declared: a type, a help text, and whether it can change a number.

Values stand in `conf/`, never here: a field without a YAML value is an error, and so is a value without a field.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any

from omegaconf import MISSING

MACHINERY = "machinery"
HELP = "help"


def key(help: str) -> Any:  # noqa: A002 - reads as prose at the place of use
    """A field of *science*: it can change a number, so it is part of a run's identity."""
    return field(default=MISSING, metadata={HELP: help})


def machinery(help: str) -> Any:  # noqa: A002
    """A field that says how or where a run is made, never what it computes; not part of the identity."""
    return field(default=MISSING, metadata={HELP: help, MACHINERY: True})
