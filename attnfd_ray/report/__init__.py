"""Shows the summary of a store: as text, and as the settings of its best trial.

No torch, no ray, no pandas.
"""
