"""Datasets whose root is a URI: read from a real S3 server on loopback, and through fsspec."""

import logging
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import boto3
import fsspec
import pytest
import torch
import yaml
from moto.server import ThreadedMotoServer

from attnfd_ray import cli
from attnfd_ray.config.loader import dump_yaml, load_experiment
from attnfd_ray.config.schema import DataSettings
from attnfd_ray.data.checker.check import check_data, quick_check
from attnfd_ray.data.datasets.base import open_dataset
from attnfd_ray.data.datasets.coco import COCO
from attnfd_ray.data.datasets.voc import VOC
from attnfd_ray.data.storage import remote, remote_files
from attnfd_ray.data.storage.cache_root import cache_root
from attnfd_ray.data.storage.remote import local_root
from attnfd_ray.errors import DataError

Make = Callable[..., Path]
Settings = Callable[..., DataSettings]
Trainer = Callable[..., tuple[int, str, str]]
CLOSED_PORT = 9  # "discard", which no machine serves


class Bucket:
    """A bucket on loopback."""

    def __init__(self, port: int) -> None:
        self._port = port
        where = f"http://127.0.0.1:{port}"
        keys = {
            "aws_access_key_id": "made",
            "aws_secret_access_key": "up",
            "region_name": "us-east-1",
        }
        self._client = boto3.client("s3", endpoint_url=where, **keys)
        self._client.create_bucket(Bucket="bucket")

    def uri(self, prefix: str = "set", bucket: str = "bucket") -> str:
        return f"s3://{bucket}/{prefix}?endpoint_override=127.0.0.1:{self._port}&scheme=http"

    def put(self, key: str, content: bytes) -> None:
        self._client.put_object(Bucket="bucket", Key=key, Body=content)

    def remove(self, key: str) -> None:
        self._client.delete_object(Bucket="bucket", Key=key)

    def upload(self, root: Path, prefix: str = "set") -> str:
        for path in files_in(root):
            self.put(f"{prefix}/{path}", (root / path).read_bytes())
        return self.uri(prefix)

    def empty(self) -> None:
        for found in self._client.list_objects_v2(Bucket="bucket").get("Contents", []):
            self.remove(found["Key"])


@pytest.fixture(scope="module")
def served() -> Iterator[Bucket]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("NO_PROXY", "127.0.0.1")
            yield Bucket(server.get_host_and_port()[1])
    finally:
        server.stop()


@pytest.fixture
def bucket(served: Bucket) -> Iterator[Bucket]:
    yield served
    served.empty()


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNFD_CACHE", str(tmp_path / "cache"))
    for name, value in {"AWS_ACCESS_KEY_ID": "made", "AWS_SECRET_ACCESS_KEY": "up"}.items():
        monkeypatch.setenv(name, value)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A server that accepts every connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def files_in(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }


def inodes_in(root: Path) -> dict[str, int]:
    return {
        path.relative_to(root).as_posix(): path.stat().st_ino
        for path in root.rglob("*")
        if path.is_file()
    }


def error_of(uri: str, **others: Any) -> str:
    with pytest.raises(DataError) as caught:
        local_root(uri, **others)
    assert len(caught.value.problems) == 1
    return str(caught.value)


def experiment(tmp_path: Path, root: str, name: str = "toyscenes") -> Path:
    tree = {
        "experiment": "e",
        "data": {"name": name, "root": root, "crop": [48, 48]},
        "student": {"width": 0.125},
        "method": {"name": "none"},
        "train": {"epochs": 1, "batch_size": 5},
    }
    file = tmp_path / "exp.yaml"
    file.write_text(yaml.safe_dump(tree))
    return file


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Trainer:
    """Run the command line in this process; return its exit code and what it printed."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["attnfd-ray", *arguments])
        with pytest.raises(SystemExit) as raised:
            cli.main()
        printed = capsys.readouterr()
        return int(raised.value.code or 0), printed.out, printed.err

    return run


def python(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_a_path_is_returned_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert local_root(tmp_path) == local_root("~") == tmp_path
    assert local_root("data/voc") == Path("data/voc")
    assert not cache_root().exists()


def test_a_file_uri_is_a_path_and_names_no_host(tmp_path: Path) -> None:
    assert local_root(f"file://{tmp_path}/my%20set") == tmp_path / "my set"
    assert error_of("file://host/set") == (
        "data.root file://host/set: names a host, host; needed is a path: file:///data, or /data"
    )
    assert not cache_root().exists()


def test_the_cache_is_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cache_root() == tmp_path / "cache"
    monkeypatch.delenv("ATTNFD_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_root() == Path("/xdg/attnfd-ray")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert cache_root() == Path("/home/me/.cache/attnfd-ray")


def test_a_bucket_reads_as_its_directory_does(
    make_voc: Make, settings: Settings, bucket: Bucket
) -> None:
    on_disk = settings(make_voc())
    in_bucket = settings(bucket.upload(Path(on_disk.root)))
    for split in ("train", "val"):
        local, remote = open_dataset(on_disk, split=split), open_dataset(in_bucket, split=split)
        assert remote.ids == local.ids
        assert remote.fingerprint() == local.fingerprint()
        for index in range(len(local)):
            assert all(map(torch.equal, remote.read(index), local.read(index)))
    assert quick_check(in_bucket) == quick_check(on_disk)
    assert check_data(in_bucket, full=True).errors == ()


def test_a_second_opening_copies_nothing(
    make_voc: Make, bucket: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    uri = bucket.upload(make_voc())
    root = local_root(uri)
    assert [record.getMessage() for record in caplog.records] == [
        f"data.root {uri}: copying 18 files, 0.00 GiB to {root}",
        f"data.root {uri}: copied 18 files, 0.00 GiB",
    ]
    caplog.clear()
    before = inodes_in(root)
    assert local_root(uri) == local_root(uri, relist=True) == root
    assert inodes_in(root) == before
    assert caplog.records == []


def test_workers_of_one_command_list_once_and_the_next_command_lists_again(
    make_voc: Make, settings: Settings, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: list[str] = []
    original = remote.open_uri
    monkeypatch.setattr(remote, "open_uri", lambda uri: (listed.append(uri), original(uri))[1])
    uri = bucket.upload(make_voc())
    data = settings(uri, test_split="val")
    check_data(data)
    assert listed == [uri]
    for split in ("train", "val", "train"):
        open_dataset(data, split=split)
    assert listed == [uri]
    check_data(data)
    assert listed == [uri, uri]


def test_workers_use_a_complete_copy_without_the_bucket(
    make_voc: Make, settings: Settings, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = settings(bucket.upload(make_voc()))
    before = open_dataset(data, split="train").fingerprint()
    monkeypatch.setattr(remote, "open_uri", lambda uri: pytest.fail("the bucket was opened"))
    assert open_dataset(data, split="train").fingerprint() == before


@pytest.mark.parametrize("uri", ["github://org:repo@main/data", "s3://bucket/a:b@c"])
def test_a_colon_that_is_not_before_a_password_is_allowed(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere(uri: str) -> Any:
        raise DataError("reached")

    monkeypatch.setattr(remote, "open_uri", nowhere)
    with pytest.raises(DataError, match=r"^reached$"):
        local_root(uri)


def test_a_changed_file_is_copied_and_a_removed_one_is_deleted(
    bucket: Bucket, tmp_path: Path
) -> None:
    for name in ("same", "changed", "old/gone", "becomes"):
        bucket.put(f"set/{name}", b"first")
    root = local_root(bucket.uri())
    before = inodes_in(root)
    bucket.put("set/changed", b"second time")
    bucket.put("set/new", b"new")
    bucket.put("set/becomes/a", b"directory")
    bucket.remove("set/old/gone")
    bucket.remove("set/becomes")
    local_root(bucket.uri(), relist=True)
    assert files_in(root) == {
        "same": b"first",
        "changed": b"second time",
        "new": b"new",
        "becomes/a": b"directory",
    }
    assert inodes_in(root)["same"] == before["same"]
    assert not (root / "old").exists()


def test_a_newer_file_of_the_same_size_is_copied(bucket: Bucket) -> None:
    bucket.put("set/file", b"first")
    root = local_root(bucket.uri())
    time.sleep(1.1)  # times are compared by the second
    bucket.put("set/file", b"again")
    local_root(bucket.uri(), relist=True)
    assert files_in(root) == {"file": b"again"}


def test_a_damaged_copy_is_repaired(bucket: Bucket) -> None:
    bucket.put("set/file", b"whole")
    root = local_root(bucket.uri())
    (root / "file").write_bytes(b"wh")
    (root / "stranger").write_bytes(b"")
    local_root(bucket.uri(), relist=True)
    assert files_in(root) == {"file": b"whole"}


def test_empty_files_and_markers_of_directories_do_no_harm(bucket: Bucket) -> None:
    bucket.put("set/", b"")
    bucket.put("set/directory/", b"")
    bucket.put("set/directory/empty", b"")
    bucket.put("set/file.txt.gz", b"not unpacked")
    root = local_root(bucket.uri())
    assert files_in(root) == {"directory/empty": b"", "file.txt.gz": b"not unpacked"}


SLOWLY = """
import os, time
from attnfd_ray.data.storage import remote
from attnfd_ray.data.storage.remote_files import RemoteFiles

quickly = RemoteFiles.chunks

def chunks(self, name):
    for chunk in quickly(self, name):
        yield chunk[:10]
        if int(name) >= 5:
            time.sleep({pause_s})
        yield chunk[10:]

RemoteFiles.chunks = chunks
remote._COPIES_AT_ONCE = 4
print(remote.local_root({uri!r}))
"""


def test_a_killed_copy_leaves_whole_files_and_the_next_one_resumes(bucket: Bucket) -> None:
    whole = {str(number): bytes([number]) * 100 for number in range(12)}
    for name, content in whole.items():
        bucket.put(f"set/{name}", content)
    killed = python(SLOWLY.format(uri=bucket.uri(), pause_s=60))
    while (
        not list(cache_root().glob("mirrors/*/parts/*"))
        or len(list(cache_root().glob("mirrors/*/files/*"))) < 5
    ):
        assert killed.poll() is None
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    mirror = next(cache_root().glob("mirrors/*"))
    left = files_in(mirror / "files")
    assert 5 <= len(left) < 12
    assert left == {name: whole[name] for name in left}
    before = inodes_in(mirror / "files")
    root = local_root(bucket.uri())
    assert files_in(root) == whole
    assert {name: inodes_in(root)[name] for name in before} == before
    assert list((mirror / "parts").iterdir()) == []


def test_two_processes_copy_each_file_once(bucket: Bucket) -> None:
    for number in range(12):
        bucket.put(f"set/{number}", b"content")
    both = [python(SLOWLY.format(uri=bucket.uri(), pause_s=0.5)) for _ in range(2)]
    printed = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert len({out for out, _ in printed}) == 1
    assert sum(err.count("copying 12 files") for _, err in printed) == 1
    assert sum(err.count("copying") for _, err in printed) == 1
    assert len(files_in(Path(printed[0][0].strip()))) == 12


def test_a_disk_without_enough_space_is_reported_with_the_sizes(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put("set/large", b"x" * (3 << 20))
    monkeypatch.setattr(remote, "GIB", 1 << 20)
    monkeypatch.setattr(remote, "free_bytes", lambda directory: 1 << 20)
    error = error_of(bucket.uri())
    mirror = next(cache_root().glob("mirrors/*"))
    assert error == (
        f"data.root {bucket.uri()}: 3.00 GiB are to be copied and {mirror} has 1.00 GiB free, 2.00 "
        "GiB too little; set ATTNFD_CACHE to a directory on a larger disk"
    )
    assert not (mirror / "files").exists()


def test_a_cache_that_cannot_be_written_is_reported(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put("set/file", b"x")
    (tmp_path / "taken").write_text("a file")
    monkeypatch.setenv("ATTNFD_CACHE", str(tmp_path / "taken"))
    error = error_of(bucket.uri())
    assert (
        "cannot be written (Not a directory); set ATTNFD_CACHE to a directory of yours with free "
        "space" in error
    )


@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "a//b", "/etc/evil", "a/./b", "file/below"]
)
def test_a_name_that_cannot_be_a_file_under_the_root_is_refused(
    bucket: Bucket, tmp_path: Path, name: str
) -> None:
    bucket.put("set/file", b"good")
    bucket.put(f"set/{name}", b"evil")
    error = error_of(bucket.uri())
    assert "1 names cannot be files of a directory" in error
    assert ("file;" if name == "file/below" else name) in error
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [
        next(cache_root().glob("mirrors/*/lock"))
    ]


def test_what_a_dataset_never_reads_is_not_copied(
    make_voc: Make, settings: Settings, bucket: Bucket
) -> None:
    root = make_voc()
    for unread in ("Annotations/a0.xml", "SegmentationObject/a0.png"):
        path = root / "VOCdevkit/VOC2012" / unread
        path.parent.mkdir()
        path.write_bytes(b"much")
    data = settings(bucket.upload(root))
    copied = files_in(open_dataset(data, split="train").root)
    assert len(copied) == 18
    assert copied.keys() == {
        name for name in files_in(root) if "Annot" not in name and "Object" not in name
    }
    assert quick_check(data) == quick_check(settings(root))


@pytest.mark.parametrize(
    ("name", "is_read"),
    [
        ("annotations/instances_val2017.json", True),
        ("annotations/captions_val2017.json", False),
        ("annotations/image_info_test2017.json", False),
        ("annotations/panoptic_val2017/1.png", False),
        ("val2017/1.jpg", True),
        ("images/val2017/1.jpg", True),
    ],
)
def test_coco_leaves_out_all_annotations_but_the_instances(
    bucket: Bucket, name: str, is_read: bool
) -> None:
    bucket.put("set/val2017/0.jpg", b"x")
    bucket.put(f"set/{name}", b"x")
    assert (local_root(bucket.uri(), unread=COCO.unread) / name).exists() == is_read


def test_a_missing_bucket_or_directory_or_a_file_is_reported(bucket: Bucket) -> None:
    bucket.put("set/file", b"x")
    for uri in (
        bucket.uri(bucket="elsewhere"),
        bucket.uri("sat"),
        bucket.uri(bucket="elsewhere", prefix=""),
    ):
        assert error_of(uri) == (
            f"data.root {uri}: cannot be read (there is no such bucket or directory); set "
            "data.root to the directory of the dataset"
        )
    uri = bucket.uri("set/file")
    assert error_of(uri) == (
        f"data.root {uri}: is a file; needed is the directory of a dataset: unpack it there"
    )
    assert "it names no bucket" in error_of("s3://")


def test_a_uri_whose_files_are_all_unread_is_refused(bucket: Bucket) -> None:
    bucket.put("set/file.zip", b"x")
    assert "there are no files" in error_of(bucket.uri(), unread=["*.zip"])


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_refused_connection_is_reported_soon(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_files, "_FIRST_ANSWER_S", 2.0)
    bucket = {"s3": "bucket", "gs": "anonymous@bucket"}[scheme]
    endpoint = f"endpoint_override=127.0.0.1:{CLOSED_PORT}&scheme=http"
    uri = f"{scheme}://{bucket}/set?{endpoint}"
    began = time.monotonic()
    error = error_of(uri)
    assert time.monotonic() - began < 20
    assert error.startswith(f"data.root {uri}: cannot be read (")
    assert error.endswith("); check data.root, the network, and the credentials in the environment")


@pytest.mark.slow
def test_a_silent_server_is_reported_soon(
    silent_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_files, "_SILENCE_S", 1.0)
    uri = f"s3://bucket/set?endpoint_override=127.0.0.1:{silent_port}&scheme=http"
    began = time.monotonic()
    assert "Timeout was reached" in error_of(uri)
    assert time.monotonic() - began < 20


def test_a_library_without_a_timeout_does_not_delay_the_error(silent_port: int) -> None:
    """Google's library waits two minutes for a first byte. The process still ends normally."""
    uri = f"gs://anonymous@bucket/set?endpoint_override=127.0.0.1:{silent_port}&scheme=http"
    process = python(
        "from attnfd_ray.data.storage import remote, remote_files\n"
        "from attnfd_ray.errors import DataError\n"
        "remote_files._FIRST_ANSWER_S = 1.0\n"
        "try:\n"
        f"    remote.local_root({uri!r})\n"
        "except DataError as error:\n"
        "    print(error)\n"
    )
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "(no answer in 1 s)" in out


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("nothing://bucket/set", "Protocol not known: nothing"),
        ("s3://bucket/set?colour=red&region=r", "Unexpected query parameter in S3 URI: 'colour'"),
        ("memory://nowhere", "/nowhere"),
    ],
)
def test_a_uri_that_no_library_accepts_is_reported(uri: str, reason: str) -> None:
    assert error_of(uri).startswith(f"data.root {uri}: cannot be read ({reason}); ")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "paramiko", None)
    monkeypatch.delitem(sys.modules, "fsspec.implementations.sftp", raising=False)
    assert error_of("sftp://host/set") == (
        'data.root sftp://host/set: cannot be read (SFTPFileSystem requires "paramiko" to be '
        "installed); pip install what is missing wherever workers run"
    )


@pytest.mark.parametrize(
    "uri",
    [
        "s3://AKIA:hidden@bucket/set",
        "s3://AKIA:hid/den@bucket/set",
        "ftp://me:hidden@host/set",
        "abfss://c@account.dfs.core.windows.net/set?sv=1&sig=hidden",
        "https://host/set?X-Amz-Security-Token=hidden",
    ],
)
def test_secrets_in_a_uri_are_refused_and_not_repeated(
    uri: str, run: Trainer, tmp_path: Path
) -> None:
    error = error_of(uri)
    assert error.startswith(f"data.root {urlsplit(uri).scheme}://...: has a password or key in it")
    assert run("data", "check", str(experiment(tmp_path, uri))) == (2, "", f"{error}\n")


def test_a_container_before_the_host_is_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def refuse(uri: str) -> None:
        opened.append(uri)
        raise DataError("seen")

    monkeypatch.setattr(remote, "open_uri", refuse)
    uris = [
        "abfss://c@account.dfs.core.windows.net/set",
        "s3://b/set?region=r&endpoint_override=h:1",
    ]
    assert [error_of(uri) for uri in uris] == ["seen", "seen"]
    assert opened == uris


@pytest.fixture
def memory() -> Iterator[Any]:
    files = fsspec.filesystem("memory")
    yield files
    files.rm("/set", recursive=True)


def test_a_scheme_that_only_fsspec_knows_is_copied_too(
    make_voc: Make, settings: Settings, memory: Any
) -> None:
    root = make_voc()
    for name, content in files_in(root).items():
        memory.pipe(f"/set/{name}", content)
    data = settings("memory://set")
    copy = open_dataset(data, split="val").root
    assert files_in(copy) == files_in(root)
    assert quick_check(data) == quick_check(settings(root))
    before = inodes_in(copy)
    memory.pipe("/set/VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt", b"b0\n")
    local_root("memory://set", unread=VOC.unread, relist=True)
    assert open_dataset(data, split="val").ids == ["b0"]
    after = inodes_in(copy)
    assert [name for name in before if before[name] != after[name]] == [
        "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt"
    ]


def test_a_store_without_file_sizes_is_refused(
    memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.pipe("/set/file", b"x")
    with monkeypatch.context() as patch:
        patch.setattr(
            type(memory), "find", lambda self, base, detail: {"/set/file": {"size": None}}
        )
        assert "it gives no size for /set/file" in error_of("memory://set")


def test_a_file_that_ends_early_is_reported(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put("set/file", b"whole")
    monkeypatch.setattr(remote_files.RemoteFiles, "chunks", lambda self, name: iter([b"wh"]))
    assert error_of(bucket.uri()) == (
        f"data.root {bucket.uri()}: file has 2 bytes and was listed with 5; start again when no "
        "other program writes there"
    )
    assert list(cache_root().glob("mirrors/*/files/*")) == []
    assert list(cache_root().glob("mirrors/*/listed")) == []


def test_a_file_that_vanishes_while_it_is_copied_is_reported(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put("set/file", b"x")
    original = remote_files.RemoteFiles.states

    def states(self: Any) -> Any:
        found = original(self)
        bucket.remove("set/file")
        return found

    monkeypatch.setattr(remote_files.RemoteFiles, "states", states)
    error = error_of(bucket.uri())
    assert error.startswith(f"data.root {bucket.uri()}: file cannot be read (")
    assert error.endswith("); start again, files that are copied already are kept")


def test_a_uri_in_a_settings_file_may_use_environment_variables(tmp_path: Path) -> None:
    file = experiment(
        tmp_path, "s3://${BUCKET}/set?endpoint_override=127.0.0.1:${PORT}&scheme=http"
    )
    settings = load_experiment(file, environ={"BUCKET": "mine", "PORT": "81"})
    assert settings.data.root == "s3://mine/set?endpoint_override=127.0.0.1:81&scheme=http"
    shown = tmp_path / "shown.yaml"
    shown.write_text(dump_yaml(settings))
    assert load_experiment(shown, environ={}) == settings


@pytest.mark.slow
def test_the_command_line_checks_a_bucket(toy: Path, tmp_path: Path, bucket: Bucket) -> None:
    uri = bucket.upload(toy)
    command = [
        sys.executable,
        "-m",
        "attnfd_ray",
        "data",
        "check",
        str(experiment(tmp_path, uri)),
        "--full",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"data.root {uri}: copying 99 files, 0.00 GiB to ")
    assert lines[1] == f"data.root {uri}: copied 99 files, 0.00 GiB"
    assert done.stdout.startswith(f"toyscenes: {uri}\n")


def test_the_command_line_reports_a_broken_uri_in_one_line(
    run: Trainer, tmp_path: Path, bucket: Bucket
) -> None:
    uri = bucket.uri(bucket="elsewhere")
    assert run("data", "check", str(experiment(tmp_path, uri))) == (2, "", f"{error_of(uri)}\n")


def test_an_endpoint_in_the_environment_is_used(
    make_voc: Make, settings: Settings, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = bucket.upload(make_voc())
    endpoint = dict(parse_qsl(urlsplit(uri).query))["endpoint_override"]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{endpoint}")
    plain = settings(uri.partition("?")[0])
    assert (
        open_dataset(plain, split="train").fingerprint()
        == open_dataset(settings(uri), split="train").fingerprint()
    )
