"""The configuration values of kbench, one folder a group."""
