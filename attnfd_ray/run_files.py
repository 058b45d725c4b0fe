"""The names of the files in the directory of a training run. Imports nothing of the package."""

from __future__ import annotations

BEST_WEIGHTS = "best.safetensors"  # of the epoch with the highest mIoU
LAST_WEIGHTS = "last.safetensors"  # of the last epoch
CHECKPOINTS = "checkpoints"  # a directory with a directory for each checkpoint
UNFINISHED_SUFFIX = ".writing"  # of a checkpoint that is being written
FAILURE_LOG = "failure.log"  # the traceback of a failure
