import json
import os
import subprocess
import sys

import pytest

from attnfd_ray.errors import StoreError
from attnfd_ray.store.store import Store


def open_error(path, *, create):
    with pytest.raises(StoreError) as caught:
        Store.open(path, create=create)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message


def test_a_new_store_can_be_opened_again(tmp_path):
    made = Store.open(tmp_path / "deep" / "results", create=True)
    for create in (True, False):
        assert Store.open(made.root, create=create).trials().num_rows == 0
    assert json.loads((made.root / "attnfd_store.json").read_text()) == {
        "format": "attnfd-ray store",
        "schema_version": 1,
    }


def test_an_empty_directory_becomes_a_store_only_where_asked_for(tmp_path):
    assert "not an attnfd-ray store" in open_error(tmp_path, create=False)
    Store.open(tmp_path, create=True)


def test_a_missing_directory_is_not_made_by_reading(tmp_path):
    assert "no such directory" in open_error(tmp_path / "results", create=False)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("create", [True, False])
def test_somebody_elses_directory_is_left_alone(tmp_path, create):
    (tmp_path / "thesis.tex").write_text("mine")
    assert "not an attnfd-ray store: no attnfd_store.json there" in open_error(
        tmp_path, create=create
    )
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("create", [True, False])
def test_a_file_is_no_store(tmp_path, create):
    (tmp_path / "results").write_text("")
    assert "is a file" in open_error(tmp_path / "results", create=create)


@pytest.mark.parametrize("create", [True, False])
def test_a_store_of_a_newer_version_is_refused(store, create):
    (store.root / "attnfd_store.json").write_text(
        '{"format": "attnfd-ray store", "schema_version": 2}'
    )
    assert "newer attnfd-ray: schema 2, this one knows 1" in open_error(store.root, create=create)


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "nonsense", '{"format": "other", "schema_version": 1}']
)
def test_a_marker_that_says_something_else_is_refused(store, text):
    (store.root / "attnfd_store.json").write_text(text)
    open_error(store.root, create=False)


def test_a_bucket_is_refused_rather_than_made_a_directory():
    assert "mount the bucket" in open_error("s3://bucket/results", create=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_without_permission_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    try:
        assert "cannot be written" in open_error(tmp_path / "results", create=True)
        assert "cannot be written" in open_error(tmp_path, create=True)
    finally:
        tmp_path.chmod(0o700)


def test_a_file_in_the_way_of_the_directory_is_an_error_of_ours(tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in open_error(tmp_path / "file" / "results", create=True)


def test_the_root_is_absolute_and_the_name_as_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = Store.open("results", create=True)
    assert (store.name, store.root) == ("results", tmp_path / "results")


def test_reading_and_reporting_need_no_heavy_library():
    code = (
        "import sys, attnfd_ray.store.store, attnfd_ray.analysis.summary, attnfd_ray.report.text, "
        "attnfd_ray.report.best_config, attnfd_ray.cli.report; print([name for name in ('torch', "
        "'ray', 'pandas', 'optuna') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
