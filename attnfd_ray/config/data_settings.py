"""The section `data:`. Sizes such as `crop: [H, W]` are in pixels. No torch, no ray."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from attnfd_ray.config.base import StrictModel
from attnfd_ray.config.fields import Identity, NotSearchable
from attnfd_ray.config.types import AboveZero, Positive, Probability, Range, registered

_SAME_DATA = NotSearchable("every trial is scored on the same data")
_SAME_PROTOCOL = NotSearchable("scores of different protocols cannot be compared")


class DataSettings(StrictModel):
    """Where the images are, how training views are drawn from them, and how a network is scored."""

    name: Annotated[
        str,
        registered("dataset"),
        _SAME_DATA,
        Field(description="The dataset: a short name such as camvid, or package.module:Class."),
    ]
    root: Annotated[
        str,
        Field(min_length=1, description="The directory of the dataset, or its URI (s3://...)."),
        _SAME_DATA,
        Identity.NONE,
    ]
    train_split: Annotated[
        str,
        NotSearchable("every trial sees the same data"),
        Field(description="The split to train on."),
    ] = "train"
    val_split: Annotated[
        str,
        _SAME_DATA,
        Field(description="The split that is scored after every epoch and chooses the best epoch."),
    ] = "val"
    test_split: Annotated[
        str | None,
        Field(
            min_length=1,
            description="A split that is scored once, at the end of a run, with the weights of its "
            "best epoch.",
        ),
        _SAME_DATA,
        Identity.EXPERIMENT,  # nothing is learned or chosen on it
    ] = None
    crop: Annotated[
        tuple[Positive, Positive],
        Field(
            description="Height and width of a training crop, in pixels; it can be searched with "
            "evaluation: native only."
        ),
    ]
    scale: Annotated[
        Range, Field(description="The range of the random scale of a training view.")
    ] = (0.5, 2.0)
    scale_base: Annotated[
        Positive | None,
        Field(
            description="The image's short side at scale 1, in pixels; null: as long as it is in "
            "the file."
        ),
    ] = None
    flip: Annotated[
        Probability, Field(description="The probability of a left-right flip in training.")
    ] = 0.5
    blur: Annotated[
        Probability,
        Field(
            description="The probability of a Gaussian blur in training, of sigma U(0, 1) pixels."
        ),
    ] = 0.0
    pad_label: Annotated[
        int, Field(ge=0, le=255, description="The label of padded pixels; 255 is ignored.")
    ] = 255
    evaluation: Annotated[
        Literal["native", "resized", "sliding"],
        Field(
            description="How images are scored: native takes whole images at the labels' own size; "
            "sliding does so in windows as large as the crop; resized scales image and label to "
            "the crop's short side, as the released AttnFD code does."
        ),
        _SAME_PROTOCOL,
    ] = "native"
    eval_stride: Annotated[
        tuple[Positive, Positive] | None,
        Field(
            description="Height and width from one sliding window to the next, in pixels; null: "
            "two thirds of the crop."
        ),
        _SAME_PROTOCOL,
    ] = None
    eval_scales: Annotated[
        tuple[AboveZero, ...],
        Field(
            min_length=1,
            description="The scales at which an image is scored; the class probabilities are added "
            "up.",
        ),
        _SAME_PROTOCOL,
    ] = (1.0,)
    eval_flip: Annotated[
        bool,
        Field(
            description="Whether each image is scored mirrored too; the class probabilities are "
            "added up."
        ),
        _SAME_PROTOCOL,
    ] = False
    input_scale: Annotated[
        float,
        Field(
            gt=0,
            le=1,
            description="A factor by which images are shrunk before anything else; scores are "
            "still taken at the labels' own size.",
        ),
        _SAME_PROTOCOL,
    ] = 1.0
    val_limit: Annotated[
        Positive | None,
        Field(description="Scores only this many images, the first of the val split; null: all."),
        _SAME_DATA,
    ] = None
    loader_workers: Annotated[
        int,
        Field(ge=0, le=64, description="The number of loading processes for each worker."),
        Identity.NONE,
    ] = 0
    cache: Annotated[
        Literal["none", "memory", "disk"],
        Field(
            description="Where a machine keeps decoded images for all of its workers and trials."
        ),
        Identity.NONE,
    ] = "none"
    cache_gib: Annotated[
        AboveZero | None,
        Field(description="The size limit of the cache, in GiB; null: half of the free space."),
        Identity.NONE,
    ] = None
