"""What the student is asked to copy: one file per method, the attention gates, and the frozen
teacher.

Imports models, data, config, registry and errors; never train, search, store, report or runtime.
"""
