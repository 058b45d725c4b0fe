"""Makes datasets: toyscenes for demos and tests, and VOC's augmented training set."""
