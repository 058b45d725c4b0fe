"""Decoded images and remote datasets kept on this machine, within the space there is."""
