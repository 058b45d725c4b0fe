"""The records of a run and of a search, and reading them from YAML."""
