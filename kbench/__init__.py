"""kbench: run knowledge-enhanced language-model methods and compare them with their papers."""

__version__ = "0.1.0"
