"""What all tests share. Comes before torch is imported."""

import os

# Sums over threads depend on how many there are; a run and its repetition in another process must
# have equally many.
os.environ.setdefault("OMP_NUM_THREADS", "1")
