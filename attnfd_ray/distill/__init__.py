"""What the student is asked to copy: one file per method, attention gates, the frozen teacher.

Imports models, config, registry and errors; never data, train, search, store, report or runtime.
"""
