"""The command line around the commands: help, --show, exit codes, tracebacks."""

import json
import os
import resource
import subprocess
import sys

import click
import pytest
import yaml

from attnfd_ray import __version__, cli
from attnfd_ray.config.loader import load_experiment
from attnfd_ray.errors import (
    AttnFDError,
    CapacityError,
    CheckpointError,
    ClusterError,
    ConfigError,
    DataError,
    Interrupted,
    RunFailed,
    StoreError,
)

FILE = """\
experiment: e
data: {name: camvid, root: "${CAMVID_ROOT}", crop: [360, 480]}
teacher: {checkpoint: /teacher.pt}
student: {backbone: resnet18}
method: {name: attnfd}
"""


class Ran:
    """The exit code and the output of the command line, run in this process."""

    def __init__(self, code, printed):
        self.code = code
        self.out = printed.out
        self.err = printed.err


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exp.yaml").write_text(FILE)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["attnfd-ray", *arguments])
        with pytest.raises(SystemExit) as raised:
            cli.main()
        return Ran(raised.value.code or 0, capsys.readouterr())

    return run


@pytest.fixture
def fails(run, monkeypatch):
    """Run a command that raises."""

    def run_failing(error):
        @click.command("fail")
        def fail():
            raise error

        monkeypatch.setitem(cli.cli.commands, "fail", fail)
        return run("fail")

    return run_failing


# ---- help and version


def test_help_comes_at_once_and_loads_neither_torch_nor_ray_nor_pyarrow():
    code = (
        "import sys; sys.argv = ['attnfd-ray', '--help']\n"
        "from attnfd_ray.cli import main\n"
        "try: main()\n"
        "finally: print(*sorted({'torch', 'ray', 'pyarrow', 'optuna', 'pydantic', 'rich'} & "
        "sys.modules.keys()))\n"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stdout.startswith("Usage: attnfd-ray [OPTIONS] COMMAND [ARGS]...\n")
    assert done.stdout.splitlines()[-1] == "", "no such library is loaded"
    # CPU time, since tests share the machine; about 0.1 s
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


@pytest.mark.parametrize(
    "command",
    [
        ["check"],
        ["train"],
        ["tune"],
        ["confirm"],
        ["report"],
        ["picture"],
        ["explain"],
        ["gc"],
        ["data"],
        ["data", "toyscenes"],
    ],
)
def test_every_command_has_help(run, command):
    ran = run(*command, "--help")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"Usage: attnfd-ray {' '.join(command)} ")
    assert run(*command, "-h").out == ran.out


def test_the_commands_are_those_tested_here():
    assert sorted(cli.cli.commands) == [
        "check",
        "confirm",
        "data",
        "explain",
        "gc",
        "picture",
        "report",
        "teacher",
        "train",
        "tune",
    ]


def test_the_version_is_one_line(run):
    ran = run("--version")
    assert (ran.code, ran.out) == (0, f"attnfd-ray, version {__version__}\n")


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "attnfd_ray", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"attnfd-ray, version {__version__}\n"


# ---- --show


@pytest.mark.parametrize("command", ["train", "tune"])
def test_show_prints_the_resolved_file_and_runs_nothing(run, monkeypatch, tmp_path, command):
    monkeypatch.setenv("CAMVID_ROOT", "/camvid")
    ran = run(command, "exp.yaml", "--show", "--set", "train.epochs=3", "--set", "store=here")
    assert (ran.code, ran.err) == (0, "")
    shown = yaml.safe_load(ran.out)
    assert shown["data"]["root"] == "/camvid"
    assert shown["train"]["epochs"] == 3
    assert shown["optim"]["lr"] == 0.007, "defaults are shown too"
    assert shown["store"] == str(tmp_path / "here")
    assert list(tmp_path.iterdir()) == [tmp_path / "exp.yaml"]


def test_tune_baseline_is_a_setting_by_another_name(run, monkeypatch):
    monkeypatch.setenv("CAMVID_ROOT", "/camvid")
    shown = run(
        "tune", "exp.yaml", "--show", "--set", "tune.baseline_trials=3", "--tune-baseline", "8"
    ).out
    assert yaml.safe_load(shown)["tune"]["baseline_trials"] == 8
    assert yaml.safe_load(run("tune", "exp.yaml", "--show").out)["tune"]["baseline_trials"] == 0


def test_what_show_prints_is_a_file_for_the_same_settings(run, monkeypatch, tmp_path):
    monkeypatch.setenv("CAMVID_ROOT", "/c\u00e4mvid #1")
    (tmp_path / "shown.yaml").write_text(run("train", "exp.yaml", "--show").out, encoding="utf-8")
    assert load_experiment(tmp_path / "shown.yaml") == load_experiment(tmp_path / "exp.yaml")


def test_show_as_json_is_one_line_with_the_same_settings(run, monkeypatch):
    monkeypatch.setenv("CAMVID_ROOT", "/camvid")
    out = run("train", "exp.yaml", "--show", "--json").out
    assert out.count("\n") == 1
    assert json.loads(out) == yaml.safe_load(run("train", "exp.yaml", "--show").out)


# ---- errors of the user


def test_every_error_in_a_file_is_a_line_on_stderr_and_the_exit_code_is_2(
    run, monkeypatch, tmp_path
):
    monkeypatch.delenv("CAMVID_ROOT", raising=False)
    with (tmp_path / "exp.yaml").open("a") as file:
        file.write(
            'train: {epochs: 0}\nsearch: {optim.lrr: {choice: [1]}}\nstore: "\\e[31m"\ntrian: {}\n'
        )
    ran = run("train", "exp.yaml", "--set", "tune.trials=none", "--set", "x")
    assert ran.code == 2
    assert ran.out == ""
    assert ran.err.splitlines() == [
        (
            "exp.yaml:2: data.root: the variable CAMVID_ROOT is not set; export it, or write "
            "${CAMVID_ROOT:-default}"
        ),
        "exp.yaml:6: train.epochs: needs at least 1, got 0",
        (
            "exp.yaml:7: search.optim.lrr: no setting 'optim.lrr': unknown key 'lrr'; did you mean "
            "'lr'?"
        ),
        "exp.yaml:9: trian: unknown key 'trian'; did you mean 'train'?",
        '--set tune.trials=none: tune.trials: needs a whole number, got "none"',
        "--set x: needs a path and a value, as in --set train.epochs=3",
    ]


def test_a_file_that_is_not_there_is_one_line(run):
    ran = run("train", "nowhere.yaml")
    assert (ran.code, ran.out, ran.err) == (
        2,
        "",
        "nowhere.yaml: cannot be read: No such file or directory\n",
    )


@pytest.mark.parametrize(
    ("arguments", "needed"),
    [
        (["tain"], "No such command 'tain'"),
        (["train"], "Missing argument 'FILE'"),
        (["train", "exp.yaml", "--sho"], "No such option '--sho'"),
        (["data", "toyscenes", "there", "--size", "3"], "3 is not in the range 32<=x<=1024"),
    ],
)
def test_an_error_on_the_command_line_exits_with_2_and_names_what_is_needed(run, arguments, needed):
    ran = run(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("Usage: attnfd-ray")
    assert needed in ran.err
    assert "Traceback" not in ran.err


def test_without_a_command_there_is_help_and_exit_code_2(run):
    ran = run()
    assert ran.code == 2
    assert "Usage: attnfd-ray [OPTIONS] COMMAND" in ran.out + ran.err


def test_a_directory_that_is_not_a_store_is_one_line(run, tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "mine").write_text("")
    for name, problem in [
        ("nowhere", "no such directory"),
        ("results", "not an attnfd-ray store"),
    ]:
        ran = run("report", name)
        assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
        assert ran.err.startswith(f"{name}: {problem}")


@pytest.mark.parametrize(
    "error", [ConfigError, DataError, ClusterError, CheckpointError, StoreError, CapacityError]
)
def test_an_error_of_the_user_is_one_line_and_exit_code_2(fails, error):
    ran = fails(error("x.png: 3 bytes\nneeded is \x1b[31m more"))
    assert (ran.code, ran.out, ran.err) == (2, "", "x.png: 3 bytes\\nneeded is \\x1b[31m more\n")


def test_the_errors_are_those_tested_here():
    def below(error):
        return {error} | {deeper for child in error.__subclasses__() for deeper in below(child)}

    ours = {
        error
        for error in below(AttnFDError)
        if error.__module__ == "attnfd_ray.errors" and error.exit_code == 2
    }
    assert {error.__name__ for error in ours} == {
        "UserError",
        "UserErrors",
        "ConfigError",
        "DataError",
        "ClusterError",
        "CheckpointError",
        "StoreError",
        "CapacityError",
    }


# ---- other ends


def test_a_run_that_failed_is_one_line_and_exit_code_1(fails):
    ran = fails(RunFailed("e.train1: NAN: the loss is nan at epoch 3"))
    assert (ran.code, ran.out, ran.err) == (1, "", "e.train1: NAN: the loss is nan at epoch 3\n")


def test_an_interrupted_command_exits_with_130(fails):
    ran = fails(KeyboardInterrupt())
    assert (ran.code, ran.out) == (130, "")
    assert ran.err.strip() == "interrupted; nothing was started; run the command again"


@pytest.mark.parametrize("name", ["train", "tune", "confirm"])
def test_an_interrupted_command_names_the_command_that_resumes(run, monkeypatch, name):
    def fail(**_):
        raise Interrupted("interrupted after the running epochs")

    monkeypatch.setattr(cli.cli.commands[name], "callback", fail)
    monkeypatch.setattr("attnfd_ray.runtime.jobs.interrupt.is_resumable", lambda: True)
    arguments = [name, "my file.yaml", "--set", "train.epochs=3"]
    if name != "confirm":
        arguments.append("--fresh")
    ran = run(*arguments)
    assert (ran.code, ran.out) == (130, "")
    assert ran.err == (
        "interrupted after the running epochs; resume from the last finished epoch: attnfd-ray "
        f"{name} 'my file.yaml' --set train.epochs=3\n"
    )


def test_a_command_that_ends_well_exits_with_0(run, monkeypatch):
    monkeypatch.setitem(cli.cli.commands, "well", click.Command("well", callback=lambda: None))
    ran = run("well")
    assert (ran.code, ran.out, ran.err) == (0, "", "")


@pytest.mark.parametrize(
    "error",
    [ZeroDivisionError("ours"), AssertionError("ours"), ValueError("ours"), OSError("ours")],
)
def test_a_bug_is_not_swallowed(run, monkeypatch, error):
    def fail():
        raise error

    monkeypatch.setitem(cli.cli.commands, "fail", click.Command("fail", callback=fail))
    monkeypatch.setattr(sys, "argv", ["attnfd-ray", "fail"])
    with pytest.raises(type(error), match="ours"):
        cli.main()


def test_a_closed_pipe_ends_the_command_silently():
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "attnfd_ray", "--help"],
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "")
