"""What happened: summaries of a results store, as text, JSON and the best settings. No torch, no
ray, no pandas.
"""
