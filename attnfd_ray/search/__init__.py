"""Decides what a search tries next, and rebuilds that from the store's history.

Imports config, registry, errors and optuna. No torch, no ray.
"""
