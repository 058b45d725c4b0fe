"""Attention-guided feature distillation for segmentation networks, searched on a Ray cluster."""

__version__ = "0.1.0"
