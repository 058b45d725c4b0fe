"""Copies of remote datasets and decoded images on this machine, within its free space."""
