"""The records of `classes.yaml`, which describes a folder of images and masks. No torch.

Every mistake in the file is one line of the DataError.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainValidator, ValidationError
from pydantic_core import ErrorDetails

from attnfd_ray import registry
from attnfd_ray.config import yaml_source
from attnfd_ray.config.base import StrictModel, as_yaml, value_error
from attnfd_ray.config.messages import dotted, message
from attnfd_ray.config.types import IGNORED
from attnfd_ray.config.yaml_nodes import Key
from attnfd_ray.data.palette import Colour, voc_colormap
from attnfd_ray.errors import ConfigError, DataError

FILE = "classes.yaml"
_EXAMPLE = "classes: [{name: road, id: 0}, {name: car, id: 1}]"


def _inside(text: str) -> str:
    path = PurePosixPath(text)
    if not text or path.is_absolute() or ".." in path.parts:
        raise value_error("needs a directory inside the dataset")
    return text


def _ending(text: str) -> str:
    if "/" in text:
        raise value_error("needs the end of a file's name, without its extension")
    return text


def _id_or_colour(value: Any) -> int | Colour:
    if _is_byte(value):
        return int(value)
    if isinstance(value, list) and len(value) == 3 and all(map(_is_byte, value)):
        red, green, blue = value
        return red, green, blue
    raise value_error("needs an id 0..255, or a color as in [0, 0, 142]")


def _is_byte(value: Any) -> bool:
    return type(value) is int and 0 <= value <= 255


_Byte = Annotated[int, Field(ge=0, le=255)]
_Directory = Annotated[str, AfterValidator(_inside)]


class FolderClass(StrictModel):
    """A class, and its value or its colour in masks."""

    name: Annotated[str, Field(min_length=1)]
    id: _Byte | None = None
    color: tuple[_Byte, _Byte, _Byte] | None = None


class FolderLayout(StrictModel):
    """The directories of images and masks, and what the masks hold."""

    images: _Directory = "images/{split}"
    masks: _Directory = "masks/{split}"
    suffix: Annotated[str, AfterValidator(_ending)] = ""
    masks_hold: Literal["ids", "colors"] = "ids"
    classes: Annotated[list[FolderClass], Field(min_length=1, max_length=254)]
    ignore: list[Annotated[int | Colour, PlainValidator(_id_or_colour)]] | None = None

    @property
    def palette(self) -> tuple[Colour, ...]:
        """The colours of the classes; classes without one get unused colours of Pascal VOC."""
        taken = {found.color for found in self.classes}
        free = (colour for colour in voc_colormap() if colour not in taken)
        return tuple(found.color or next(free) for found in self.classes)

    @property
    def label_of_id(self) -> Mapping[int, int]:
        """Value in a mask of ids -> class id or IGNORED. Without `ignore`, 255 is IGNORED."""
        ignored = self.ignore
        if ignored is None:
            ignored = [IGNORED]
        labels = {value: IGNORED for value in ignored if isinstance(value, int)}
        for label, found in enumerate(self.classes):
            if found.id is not None:
                labels[found.id] = label
        return labels

    @property
    def label_of_colour(self) -> Mapping[Colour, int]:
        """Colour in a mask of colours -> class id or IGNORED."""
        ignored = self.ignore or ()
        labels = {colour: IGNORED for colour in ignored if not isinstance(colour, int)}
        for label, found in enumerate(self.classes):
            if found.color is not None:
                labels[found.color] = label
        return labels


def read_layout(root: Path) -> FolderLayout:
    """Return the content of classes.yaml. DataError with every mistake found, one line each."""
    path = root / FILE
    if not path.is_file():
        raise DataError(
            f"{root}: there is no {FILE}; needed is one that says what masks hold, such as "
            f"{_EXAMPLE}"
        )
    try:
        # No variable of the environment may get into a file that another person wrote.
        read = yaml_source.read(path, environ={}, needs=f"the classes, such as {_EXAMPLE}")
    except ConfigError as error:
        raise DataError(error.problems) from None
    problems = dict(read.problems)
    try:
        layout = FolderLayout.model_validate(read.tree)
        problems |= dict(_broken_rules(layout))
    except ValidationError as error:
        for details in error.errors(include_url=False):
            # A value that could not be read has its own line already.
            if not any(details["loc"][: len(known)] == known for known in read.problems):
                problems.setdefault(details["loc"], _complaint(details, read.tree))
    if problems:
        keys = sorted(problems, key=read.location)
        raise DataError([f"{read.location(key)}: {dotted(key)}: {problems[key]}" for key in keys])
    return layout


def _complaint(details: ErrorDetails, tree: Mapping[str, Any]) -> str:
    if details["type"] != "extra_forbidden":
        return message(details, tree)
    key = str(details["loc"][-1])
    model: type[StrictModel] = FolderClass
    if len(details["loc"]) == 1:
        model = FolderLayout
    return f"unknown key '{key}'{registry.suggestion(key, model.model_fields)}"


def _broken_rules(layout: FolderLayout) -> Iterator[tuple[Key, str]]:
    """Yield (key, mistake) for rules between values that are valid by themselves."""
    held = {"ids": "id", "colors": "color"}[layout.masks_hold]
    for index, found in enumerate(layout.classes):
        if getattr(found, held) is None:
            yield (
                ("classes", index, held),
                f"is missing; needed where masks_hold is {layout.masks_hold}",
            )
        if held == "color" and found.id is not None:
            yield ("classes", index, "id"), "means nothing where masks_hold is colors; leave it out"
    for word in ("name", "id", "color"):
        yield from _repeated(layout, word)
    yield from _broken_ignore(layout, held)


def _repeated(layout: FolderLayout, word: str) -> Iterator[tuple[Key, str]]:
    """Yield (key, mistake) for each class whose name, id or colour an earlier class has too."""
    values = [getattr(found, word) for found in layout.classes]
    for index, value in enumerate(values):
        first = values.index(value)
        if value is not None and first < index:
            yield (
                ("classes", index, word),
                f"is that of classes[{first}] too, got {as_yaml(value)}; needs another",
            )


def _broken_ignore(layout: FolderLayout, held: str) -> Iterator[tuple[Key, str]]:
    names = {getattr(found, held): found.name for found in layout.classes}
    needed = {"id": "an id", "color": "a color"}[held]
    for index, value in enumerate(layout.ignore or ()):
        if isinstance(value, int) != (held == "id"):
            yield (
                ("ignore", index),
                f"needs {needed} where masks_hold is {layout.masks_hold}, got {as_yaml(value)}",
            )
        elif value in names:
            yield (
                ("ignore", index),
                f"{as_yaml(value)} is the {held} of class '{names[value]}'; take one of them out",
            )
