"""Where things run: the only home of ray. May import train, search, store, report and all below
them.
"""
