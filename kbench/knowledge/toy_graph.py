"""The toy graph as readers of graphs know it. It stands with the other toy data, whose probe asks for its facts."""

from __future__ import annotations

from kbench.data.toy_graph import (
    AUTHOR,
    BORN,
    CAPITAL,
    CHILD,
    CITIZEN,
    COUNTRY,
    FIELD,
    LANGUAGES,
    LIVES,
    MEMBER,
    ORIGIN,
    REGION,
    RELATIONS,
    SEAT,
    SIBLING,
    SIZES,
    SPOUSE,
    VERSION,
    WORKS,
    Name,
    Triple,
    generate,
)

__all__ = [
    "AUTHOR", "BORN", "CAPITAL", "CHILD", "CITIZEN", "COUNTRY", "FIELD", "LANGUAGES", "LIVES", "MEMBER", "ORIGIN",
    "REGION", "RELATIONS", "SEAT", "SIBLING", "SIZES", "SPOUSE", "VERSION", "WORKS", "Name", "Triple", "generate",
]  # fmt: skip
