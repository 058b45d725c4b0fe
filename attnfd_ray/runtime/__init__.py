"""Runs jobs on a Ray cluster: the only folder that imports ray.

May import train, search, store, report and everything below them.
"""
