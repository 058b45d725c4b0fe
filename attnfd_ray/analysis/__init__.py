"""Turns rows of the store into rankings, means over seeds and comparisons.

Prints nothing. No torch, no ray.
"""
