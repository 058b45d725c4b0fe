"""Checks a dataset before training, and draws its images and masks."""
