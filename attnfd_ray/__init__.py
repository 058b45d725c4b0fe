"""Attention-guided feature distillation for segmentation networks, searched on a Ray cluster.

The public names are imported on first use, so `import attnfd_ray` itself stays fast:

    from attnfd_ray import Method, MethodSettings, Store, load_student
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attnfd_ray.config.schema import MethodSettings
    from attnfd_ray.data.datasets.base import SegmentationDataset
    from attnfd_ray.distill.layerwise import LayerwiseMethod
    from attnfd_ray.distill.method import Method
    from attnfd_ray.models import SegmentationModel, load_student
    from attnfd_ray.store.store import Store

__version__ = "0.1.0"

__all__ = [
    "LayerwiseMethod",
    "Method",
    "MethodSettings",
    "SegmentationDataset",
    "SegmentationModel",
    "Store",
    "__version__",
    "load_student",
]

# the same as above, for the import on first use; a test keeps the two equal
_MODULES = {
    "LayerwiseMethod": "attnfd_ray.distill.layerwise",
    "Method": "attnfd_ray.distill.method",
    "MethodSettings": "attnfd_ray.config.schema",
    "SegmentationDataset": "attnfd_ray.data.datasets.base",
    "SegmentationModel": "attnfd_ray.models",
    "Store": "attnfd_ray.store.store",
    "load_student": "attnfd_ray.models",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in _MODULES:
        raise AttributeError(f"module 'attnfd_ray' has no attribute '{name}'")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
