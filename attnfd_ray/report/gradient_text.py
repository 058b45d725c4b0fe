"""The section of a printed report on the gradients of the loss terms. No torch, no ray."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console

from attnfd_ray.analysis import numbers
from attnfd_ray.analysis.records import GradientLine
from attnfd_ray.config.gradients import DISTILLATION, MAX_RATIO
from attnfd_ray.report.console import add_row, new_table, print_table, print_text, print_title

_HOW_TO_READ = (
    "First, median and last epoch: the gradient of distillation / that of cross-entropy; above "
    f"{MAX_RATIO:g} (!) distillation can take over the training: try a lower method.loss_weight. "
    "In the last epoch: the cosine of these two gradients, and each term's share of the sum of all "
    "terms' norms."
)


def show_gradients(lines: Iterable[GradientLine], console: Console) -> None:
    """Print the ratio of distillation to cross-entropy over the epochs, and each term's share."""
    print_title(console, "Gradients of the loss terms with respect to the student (L2 norms)")
    table = new_table(["Trial"], ["First", "Median", "Last", "Cosine"], ["Shares"])
    for line in lines:
        shares = [f"{name} {100 * share:.0f} %" for name, share in line.shares.items()]
        add_row(
            table,
            line.trial_id,
            _ratio(line.first),
            _ratio(line.median),
            _ratio(line.last),
            numbers.decimals(line.cosines.get(DISTILLATION), 2),
            ", ".join(shares),
        )
    print_table(console, table)
    console.print()
    print_text(console, _HOW_TO_READ, indent=2)


def _ratio(ratio: float | None) -> str:
    """Return a ratio, with a mark where it is above the limit."""
    if ratio is None:
        return numbers.NONE
    if ratio > MAX_RATIO:
        return f"! {ratio:.3g}"
    return f"{ratio:.3g}"
