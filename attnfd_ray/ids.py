"""The ids of runs, searches and trials: how they are made, and how they are recognised.

Imports nothing of the package. Ids are names of files and directories in a store.

    camvid.train1                          a run of `train`
    camvid.search2                         a search
    camvid.search2-0003                    its trial 3
    camvid.search2-b0001                   its first trial of the tuned baseline
    camvid.search2.confirm-1f2e3d4c-s101   a run of `confirm`: config and seed
    teacher-0123456789abcdef               a teacher that was trained
"""

from __future__ import annotations

import re

TRIAL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,149}")
# of a run or a search: `lock` is the name under which a command holds it
RUN_ID = re.compile(r"(?P<lock>.+\.(?P<command>train|search))\d+")
TEACHER_ID = re.compile("teacher-[0-9a-f]+")
# what follows the id of a search in the ids of its trials
_TRIAL_SUFFIX = r"(\.confirm-[0-9a-f]+-s|-b?)\d+"


def trial_id(search_id: str, index: int, *, is_baseline_trial: bool = False) -> str:
    """Return the id of a trial of a search.

    >>> trial_id("camvid.search2", 3), trial_id("camvid.search2", 1, is_baseline_trial=True)
    ('camvid.search2-0003', 'camvid.search2-b0001')
    """
    if is_baseline_trial:
        return f"{search_id}-b{index:04d}"
    return f"{search_id}-{index:04d}"


def trial_index(trial: str, search_id: str) -> int:
    """Return the number in the id of a trial of this search.

    >>> trial_index("camvid.search2-b0001", "camvid.search2")
    1
    """
    prefix, _, number = trial.rpartition("-")
    assert prefix == search_id, f"{trial} is not of search {search_id}"
    return int(number.removeprefix("b"))


def confirm_prefix(search_id: str) -> str:
    """Return what the ids of a search's `confirm` runs begin with."""
    return f"{search_id}.confirm"


def confirm_id(prefix: str, config_hash: str, seed: int) -> str:
    """Return the id of a `confirm` run of a config with a seed."""
    return f"{prefix}-{config_hash[:8]}-s{seed}"


def teacher_id(teacher_hash: str) -> str:
    """Return the id of the training of a teacher."""
    return f"teacher-{teacher_hash}"


def trials_of(search_id: str) -> re.Pattern[str]:
    """Return the pattern of the ids of a search's trials and `confirm` runs."""
    return re.compile(re.escape(search_id) + _TRIAL_SUFFIX)
