"""Makes datasets: the toyscenes of demos and tests, and VOC's augmented training set."""
