"""The files in cluster/, as far as they can be tested without a cluster."""

import importlib.util
import json
import os
import re
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml

import attnfd_ray

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
FILES = sorted(path for path in CLUSTER.iterdir() if path.name != "README.md")
YAML_FILES = [path for path in FILES if path.suffix == ".yaml"]


def read(name: str) -> str:
    return (CLUSTER / name).read_text(encoding="utf-8")


def ray_version() -> str:
    found = re.search(
        r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert found
    return found[1]


@pytest.fixture(scope="module")
def kuberay() -> dict[str, dict]:
    return {document["kind"]: document for document in yaml.safe_load_all(read("kuberay.yaml"))}


def containers(kuberay: dict[str, dict]) -> list[dict]:
    spec = kuberay["RayCluster"]["spec"]
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    return [container for group in groups for container in group["template"]["spec"]["containers"]]


def test_there_are_four_files_and_the_readme_names_each():
    assert len(FILES) == 4
    readme = read("README.md")
    assert [path.name for path in FILES if f"`{path.name}`" not in readme] == []


def test_the_readme_warns_that_none_of_it_was_run():
    assert "have not been run on a real cluster" in " ".join(read("README.md").split())


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: path.name)
def test_yaml_parses_to_documents_with_content(path):
    documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    assert documents
    assert all(isinstance(document, dict) for document in documents)


def test_every_version_of_ray_is_the_one_of_the_constraints(kuberay):
    assert kuberay["RayCluster"]["spec"]["rayVersion"] == ray_version()
    images = re.findall(r"rayproject/ray:(\d+\.\d+\.\d+)-py(\d+)-(?:cpu|gpu)", read("Dockerfile"))
    assert len(images) == 2
    assert set(images) == {(ray_version(), "311")}


def test_every_image_is_the_one_that_the_dockerfile_builds(kuberay):
    built = re.search(r"docker build .* -t (\S+) \.", read("Dockerfile"))
    assert built
    assert built[1].endswith(f":{attnfd_ray.__version__}")
    assert {container["image"] for container in containers(kuberay)} == {built[1]}
    assert set(re.findall(r"\S+/attnfd-ray:\S+", read("README.md"))) == {built[1]}


def test_the_files_that_the_dockerfile_copies_exist():
    sources = [
        name
        for line in re.findall(r"^COPY --chown=ray (.+) \S+$", read("Dockerfile"), re.M)
        for name in line.split()
    ]
    assert len(sources) >= 5
    assert [name for name in sources if not (ROOT / name).exists()] == []


def test_kuberay_asks_for_a_token_and_runs_its_job_on_its_own_cluster(kuberay):
    cluster, job = kuberay["RayCluster"], kuberay["RayJob"]
    assert cluster["apiVersion"] == job["apiVersion"] == "ray.io/v1"
    assert cluster["spec"]["authOptions"] == {"mode": "token"}
    assert job["spec"]["clusterSelector"] == {"ray.io/cluster": cluster["metadata"]["name"]}


def test_the_job_of_kuberay_runs_a_file_of_the_image(kuberay):
    file = kuberay["RayJob"]["spec"]["entrypoint"].split()[-1]
    assert (ROOT / Path(file).relative_to("/home/ray/attnfd-ray")).is_file()


def test_every_pod_mounts_the_shared_volume(kuberay):
    mounts = [
        {mount["mountPath"] for mount in container["volumeMounts"]}
        for container in containers(kuberay)
    ]
    assert len(mounts) == 2
    assert all("/shared" in paths for paths in mounts)


def test_ray_up_fits_the_schema_of_this_ray():
    # found without importing ray, which reads the environment when it is imported
    spec = importlib.util.find_spec("ray")
    assert spec
    assert spec.origin
    schema = json.loads(
        (Path(spec.origin).parent / "autoscaler/ray-schema.json").read_text(encoding="utf-8")
    )
    jsonschema.validate(yaml.safe_load(read("ray-up.yaml")), schema)


def test_every_ray_that_is_started_by_ssh_wants_the_token():
    config = yaml.safe_load(read("ray-up.yaml"))
    commands = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    starts = [command for command in commands if "ray start" in command]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in command for command in starts)
    assert "~/.ray/auth_token" in config["file_mounts"]


def test_the_slurm_script_is_bash():
    subprocess.run(["bash", "-n", str(CLUSTER / "slurm.sh")], check=True, timeout=10)


@pytest.mark.parametrize(
    ("environment", "missing"),
    [({}, "ATTNFD_VENV"), ({"ATTNFD_VENV": "/nowhere"}, "ATTNFD_STORE")],
    ids=["no environment", "no store"],
)
def test_the_slurm_script_names_what_is_missing(environment, missing):
    known = {"PATH": os.environ["PATH"], **environment}
    done = subprocess.run(
        ["bash", str(CLUSTER / "slurm.sh"), "tune", "x.yaml"],
        env=known,
        capture_output=True,
        text=True,
        timeout=10,
    )
    assert done.returncode != 0
    assert missing in done.stderr


def test_the_slurm_script_starts_ray_on_every_node_and_the_command_on_one(tmp_path):
    """Run with fakes of srun and hostname, which print what they get."""
    bin_directory = tmp_path / "bin"
    bin_directory.mkdir()
    (bin_directory / "activate").write_text("")
    (bin_directory / "hostname").write_text("#!/bin/bash\necho 192.0.2.10 192.0.2.99\n")
    (bin_directory / "srun").write_text(
        '#!/bin/bash\nprintf "%s\\n" "$RAY_AUTH_MODE:${#RAY_AUTH_TOKEN}" "$@"\n'
    )
    for name in ("hostname", "srun"):
        (bin_directory / name).chmod(0o755)
    environment = {
        "PATH": f"{bin_directory}:{os.environ['PATH']}",
        "ATTNFD_VENV": str(tmp_path),
        "ATTNFD_STORE": "/shared/results",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "16",
    }
    done = subprocess.run(
        ["bash", str(CLUSTER / "slurm.sh"), "tune", "a file.yaml"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    )
    token, *arguments = done.stdout.splitlines()
    assert token == "token:64"
    split = arguments.index("--")
    assert "--min-nodes" in arguments[:split]
    assert arguments[split + 1 :] == [
        "env",
        "RAY_ADDRESS=192.0.2.10:6379",
        "attnfd-ray",
        "tune",
        "a file.yaml",
    ]
