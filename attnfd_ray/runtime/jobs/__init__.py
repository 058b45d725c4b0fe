"""Jobs: what a worker group does, the broker between driver and groups, and what becomes of
failures.
"""
