"""Writes docs/settings.md, the reference of all settings.

python docs/generate_settings.py
"""

from __future__ import annotations

from pathlib import Path

from attnfd_ray.config import reference

PAGE = Path(__file__).with_name("settings.md")


def main() -> None:
    """Write the page."""
    PAGE.write_text(reference.markdown(), encoding="utf-8")


if __name__ == "__main__":
    main()
