"""From files to batches: transforms, readers in other processes, the loader of one worker."""
