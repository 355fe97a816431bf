"""The published tables, each a YAML file: rows and columns as printed, published values, tolerance."""
