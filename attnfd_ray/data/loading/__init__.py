"""From files to batches: transforms, the pool of reader processes, the loader of one worker."""
