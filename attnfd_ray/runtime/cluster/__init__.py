"""The cluster: connecting to it, its nodes and capacity, and the checks before a command starts."""
