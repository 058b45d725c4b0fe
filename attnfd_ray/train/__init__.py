"""One training run: steps, optimiser, metrics, checkpoints and the epochs. No ray.

Imports distill, data, models, config, registry and errors; never search, store, report or runtime.
"""
