"""From rows of the store to rankings, means over seeds and comparisons. Prints nothing. No torch,
no ray.
"""
