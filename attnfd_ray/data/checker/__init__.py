"""Checks a dataset before training, and draws what is in it."""
