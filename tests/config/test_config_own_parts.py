"""`package.module:Attribute` in a settings file: a user's own component, checked at the start."""

import pytest

SECTIONS = {
    "data": ("{{name: '{}', root: /d, crop: [9, 9]}}", "exp.yaml:2: data.name: dataset"),
    "student": ("{{backbone: '{}'}}", "exp.yaml:4: student.backbone: backbone"),
    "teacher": ("{{arch: '{}', checkpoint: x}}", "exp.yaml:3: teacher.arch: arch"),
    "method": ("{{name: '{}'}}", "exp.yaml:5: method.name: method"),
    "tune": ("{{sampler: '{}'}}", "exp.yaml:6: tune.sampler: sampler"),
}


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("nowhere_to_be_found:Part",
         ("there is no module 'nowhere_to_be_found'; install it, or put its directory on "
         "PYTHONPATH")),
        ("json.nowhere:Part", ("there is no module 'json.nowhere'; install it, or put its "
                              "directory on PYTHONPATH")),
        ("json:Part", "module 'json' has no 'Part'"),
        (":Part", "your own is written package.module:Attribute"),
        ("json:", "your own is written package.module:Attribute"),
        (".json:Part", "your own is written package.module:Attribute"),
        ("a b:Part", "your own is written package.module:Attribute"),
        ("json:Part:Part", "your own is written package.module:Attribute"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("section", SECTIONS)
def test_a_component_that_does_not_exist_has_its_line(file, section, name, problem):
    text, location = SECTIONS[section]
    file.write(**{section: text.format(name)})
    assert file.problem() == f"{location} '{name}': {problem}"


def test_a_method_has_a_settings_record(file, module):
    module("half_a_method", "class Half: pass\nclass Wrong:\n    Settings = dict\n")
    for name in ("half_a_method:Half", "half_a_method:Wrong"):
        file.write(method=f"{{name: '{name}'}}")
        assert file.problem() == (
            f"exp.yaml:5: method.name: '{name}' has no Settings, a class derived from "
            "attnfd_ray.MethodSettings"
        )


def test_an_own_method_is_validated_by_its_own_record(file, module):
    module(
        "warm",
        "from attnfd_ray.config.schema import MethodSettings\n"
        "class Warm:\n    needs_teacher = False\n    class Settings(MethodSettings):\n        "
        "heat: float = 1.0\n",
    )
    file.write(method="{name: 'warm:Warm', heat: 2}", teacher=None)
    assert file.load().method.model_dump() == {"name": "warm:Warm", "heat": 2.0}
    file.write(method="{name: 'warm:Warm', heat: true, haet: 1}", teacher=None)
    assert file.problems() == [
        "exp.yaml:4: method.heat: needs a number, got true",
        "exp.yaml:4: method.haet: unknown key 'haet'; did you mean 'heat'?",
    ]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("import a_package_it_forgot", ModuleNotFoundError),
        ("1 / 0", ZeroDivisionError),
        ("None.x", AttributeError),
    ],
)
def test_an_error_inside_an_own_module_passes_through(file, module, text, error):
    module("broken_part", text)
    file.write(student="{backbone: 'broken_part:net'}")
    with pytest.raises(error):
        file.load()
