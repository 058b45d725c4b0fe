"""What follows from each kind of failure."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from attnfd_ray.config.schema import TrainSettings, TuneSettings
from attnfd_ray.errors import AttnFDError, ConfigError, DataError, RunFailed, StoreError
from attnfd_ray.runtime.jobs.failure_policy import POLICIES, FailureBudget, Policy, failure
from attnfd_ray.terms import FailureKind

KINDS = set(FailureKind)


def fail(limit: int | None, *kinds: str) -> list[AttnFDError | None]:
    budget = FailureBudget(limit, again="attnfd-ray tune FILE --retry failed")
    return [budget.add(f"t{number}", kind, f"text {number}") for number, kind in enumerate(kinds)]


def test_every_kind_has_a_policy() -> None:
    assert POLICIES.keys() == KINDS


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_only_failed_trials_count_and_infeasible_ones_are_not_repeated(
    kind: str,
) -> None:
    policy = POLICIES[kind]
    assert policy.counts == (policy.state == "FAILED")
    assert not (policy.ends and policy.counts), (
        "a failure that ends the command need not be counted"
    )
    if policy.state == "INFEASIBLE":
        assert policy.tries == 1, "the same settings would do the same"


@pytest.mark.parametrize(
    ("kind", "again"),
    [
        ("OOM", 0),
        ("NAN", 0),
        ("USER_CODE", 0),
        ("DATA", 0),
        ("TIMEOUT", 1),
        ("WORKER_LOST", 2),
        ("NODE_LOST", 9),
    ],
)
def test_a_job_is_started_again_as_often_as_its_kind_allows(kind: str, again: int) -> None:
    tries = [POLICIES[kind].retries(failures) for failures in range(1, 10)]
    assert tries == [True] * again + [False] * (9 - again)


def test_settings_at_fault_never_stop_a_search() -> None:
    assert fail(1, *["NAN", "OOM"] * 5, "NODE_LOST") == [None] * 11


def test_the_third_failure_stops_a_search_with_a_budget_of_three() -> None:
    *before, error = fail(3, "USER_CODE", "NAN", "DATA", "USER_CODE")
    assert before == [None] * 3
    assert isinstance(error, RunFailed)
    assert error.exit_code == 1
    assert str(error) == (
        "stopped: 3 of this command's trials failed (2 USER_CODE, 1 DATA), which is "
        "tune.max_failures; the first, t0: text 0; fix that and run `attnfd-ray tune FILE --retry "
        "failed`, or allow more with --set tune.max_failures=N (null: any number)"
    )


def test_a_search_without_a_limit_never_stops() -> None:
    assert fail(None, *["USER_CODE", "DATA", "WORKER_LOST"] * 20) == [None] * 60


@pytest.mark.parametrize(("kind", "error"), [("DATA", DataError), ("CONFIG", ConfigError)])
def test_user_errors_keep_their_lines_and_exit_code_if_nothing_else_failed(
    kind: str, error: type[DataError | ConfigError]
) -> None:
    budget = FailureBudget(2, again="attnfd-ray tune FILE --retry failed")
    assert budget.add("a", kind, "x.png: is missing\ny.png: is empty") is None
    found = budget.add("b", kind, "x.png: is missing")
    assert type(found) is error
    assert found.exit_code == 2
    assert found.problems[:2] == ["x.png: is missing", "y.png: is empty"]
    assert found.problems[2].startswith(f"stopped: 2 of this command's trials failed (2 {kind})")


def test_of_several_kinds_the_first_is_reported_in_one_line() -> None:
    budget = FailureBudget(2, again="again")
    assert budget.add("a", "DATA", "x.png: is missing\ny.png: is empty") is None
    found = budget.add("b", "USER_CODE", "KeyError: 'x'")
    assert type(found) is RunFailed
    assert "the first, a: x.png: is missing; fix that" in str(found)


def test_a_disk_that_refuses_writes_ends_a_command_at_once() -> None:
    (error,) = fail(None, "STORE")
    assert isinstance(error, StoreError)
    assert (str(error), error.exit_code) == ("text 0", 2)


@pytest.mark.parametrize("lines", [["no such file"], ["no such tap; there is:", "stage1  64, 4"]])
def test_an_error_in_the_settings_keeps_its_lines_on_its_way_from_a_worker(
    lines: list[str],
) -> None:
    error = failure("t1", "CONFIG", str(ConfigError(lines)))
    assert isinstance(error, ConfigError)
    assert error.problems == lines
    assert error.exit_code == 2


def test_the_error_of_a_failed_run_has_its_id_and_kind() -> None:
    error = failure("t1", "WORKER_LOST", "its workers died 3 times")
    assert (type(error), str(error)) == (RunFailed, "t1: WORKER_LOST: its workers died 3 times")


def test_the_page_on_failures_has_the_same_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "failures.md").read_text(encoding="utf-8")
    rows = [
        re.split(r"\s*\|\s*", line.strip("| "))
        for line in page.splitlines()
        if re.match(r"\| [A-Z_]+ \|", line)
    ]
    assert rows == [row_of(kind, policy) for kind, policy in POLICIES.items()]


def row_of(kind: str, policy: Policy) -> list[str]:
    tries = {None: "any number of times", 1: "once"}
    end = {True: ", and the command ends", False: ""}
    return [
        kind,
        policy.why,
        policy.state + end[policy.ends],
        tries.get(policy.tries, f"{policy.tries} times"),
        {True: "yes", False: "no"}[policy.counts],
    ]


def test_the_page_on_failures_gives_the_defaults_of_its_settings() -> None:
    page = (Path(__file__).parents[2] / "docs" / "failures.md").read_text(encoding="utf-8")
    assert f"`tune.max_failures`** ({TuneSettings().max_failures};" in page
    assert f"`train.step_patience_s` ({TrainSettings().step_patience_s:g};" in page
