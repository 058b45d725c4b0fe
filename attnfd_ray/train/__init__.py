"""One training run: the step, the optimiser, metrics, checkpoints and the loop. It knows no Ray.

Imports distill, data, models, config, registry and errors; never search, store, report or runtime.
"""
