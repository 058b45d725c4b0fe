"""The table of components: short names, a user's own, and the messages for unknown names."""

import pytest

from attnfd_ray import registry
from attnfd_ray.errors import ConfigError

NAMES = [(kind, name) for kind, table in registry.TABLES.items() for name in table]


@pytest.mark.parametrize(("kind", "name"), NAMES)
def test_every_short_name_stands_for_something_that_can_be_called_or_is_a_preset(kind, name):
    assert callable(registry.load(kind, name)) == (kind != "preset")


def test_there_is_a_table_for_each_kind_of_component():
    assert sorted(registry.TABLES) == [
        "arch",
        "backbone",
        "dataset",
        "early_stopping",
        "method",
        "preset",
        "sampler",
    ]


def test_a_users_own_component_is_named_by_module_and_attribute():
    assert registry.load("method", "collections:OrderedDict").__name__ == "OrderedDict"
    assert registry.check("sampler", "not.even.there:Yet") == "not.even.there:Yet"


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("backbone", "resnet-18", "unknown backbone 'resnet-18'; did you mean 'resnet18'?"),
        (
            "early_stopping",
            "never",
            "unknown early stopping 'never'; there is: asha, hyperband, median, none",
        ),
        (
            "method",
            "",
            f"unknown method ''; there is: {', '.join(sorted(registry.TABLES['method']))}",
        ),
        ("method", "a:b:c", "method 'a:b:c': your own is written package.module:Attribute"),
        (
            "method",
            "gone:X",
            (
                "method 'gone:X': there is no module 'gone'; install it, or put its directory on "
                "PYTHONPATH"
            ),
        ),
        ("method", "json:Part", "method 'json:Part': module 'json' has no 'Part'"),
    ],
)
def test_the_error_for_an_unknown_component_has_the_way_out(kind, name, message):
    with pytest.raises(ConfigError) as raised:
        registry.load(kind, name)
    assert str(raised.value) == message


def test_a_module_whose_name_only_begins_alike_is_not_taken_for_the_missing_one(
    tmp_path, monkeypatch
):
    (tmp_path / "abcd_part.py").write_text("import abcd")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="No module named 'abcd'"):
        registry.load("method", "abcd_part:Part")


@pytest.mark.parametrize(
    ("word", "known", "said"),
    [
        ("lay", ["layers", "norm"], "; did you mean 'layers'?"),
        ("zzz", ["b", "a"], "; there is: a, b"),
        ("zzz", [], ""),
    ],
)
def test_a_suggestion_is_the_nearest_word_or_all_there_are(word, known, said):
    assert registry.suggestion(word, known) == said
