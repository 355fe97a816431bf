"""Seeds derived by name: every random choice has a seed of its own, a function of the run's seed and what it is for."""

from __future__ import annotations

import hashlib


def derive(seed: int, *names: object) -> int:
    """A seed of 63 bits for the named purpose; the same arguments give the same seed on every machine."""
    text = "\x1f".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
