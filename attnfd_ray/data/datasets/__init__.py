"""The datasets: their file layouts, their classes, and how each one reads a mask."""
