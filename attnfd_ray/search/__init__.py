"""What a search tries next, rebuilt from what it tried. Imports config, registry, errors, optuna;
no torch, no ray.
"""
