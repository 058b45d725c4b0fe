"""The datasets: where their files lie, which classes they have, and how a mask is read."""
