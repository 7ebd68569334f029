"""The launchers for clusters, under stand-ins for what only a cluster has."""

import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from jmrec.cluster.settings import EXPLICIT, read_settings

ROOT = Path(__file__).resolve().parents[2]
SHELLCHECK = Path(sysconfig.get_path("scripts")) / "shellcheck"  # of the test extra
SCRIPTS = ["launch/local_multiprocess.sh", "launch/slurm.sbatch", "launch/tpu_vm.sh"]


def script(path: Path, text: str) -> Path:
    """Write an executable script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/bash\n" + text)
    path.chmod(0o755)
    return path


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose jmrec only says what it was given, and ends as ``codes`` says."""
    root = tmp_path / "a checkout"
    shutil.copytree(ROOT / "launch", root / "launch")
    for name in ("setup.cfg", "setup.py", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, root / name)
    (root / "jmrec").mkdir()
    (root / "jmrec" / "__init__.py").touch()
    (root / "jmrec" / "__main__.py").write_text(
        "import os, pathlib, sys, time\n"
        "me = os.environ.get('JMREC_PROCESS', '')\n"
        "names = ('JMREC_COORDINATOR', 'JMREC_PROCESSES', 'JMREC_CLUSTER', 'XLA_FLAGS')\n"
        "seen = ' '.join(os.environ.get(name, '-') for name in names)\n"
        "line = ' '.join([f'MAIN {me} | {seen} |', *sys.argv[1:]])\n"
        "os.write(1, f'{line}\\n'.encode())\n"  # whole, whatever the others write
        "codes = pathlib.Path(os.environ['CODES' + me])\n"
        "first, *rest = codes.read_text().split()\n"
        "codes.write_text(' '.join(rest))\n"
        "if first == 'sleep':\n"
        "    import signal\n"
        "    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n"
        "    os.write(1, b'READY\\n')\n"
        "    time.sleep(100)\n"
        "sys.exit(int(first))\n"
    )
    return root


@pytest.fixture
def run(checkout: Path, tmp_path: Path) -> Run:
    """Run a launcher with nothing of this process's own settings; lists of codes go to files."""

    def call(
        name: str, *words: str, codes: str | tuple[str, ...] = "", **env: str
    ) -> subprocess.CompletedProcess[str]:
        kept = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("JMREC_", "JAX_", "XLA_", "SLURM_", "PYTHONPATH"))
        }
        for process, each in enumerate((codes,) if isinstance(codes, str) else codes):
            label = "" if isinstance(codes, str) else str(process)
            (tmp_path / f"codes{label}").write_text(each)
            kept[f"CODES{label}"] = str(tmp_path / f"codes{label}")
        kept |= {"PATH": f"{tmp_path / 'bin'}:{kept['PATH']}", "JMREC_PYTHON": sys.executable}
        return subprocess.run(
            ["bash", str(checkout / name), *words],
            cwd=tmp_path,
            env=kept | env,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return call


def mains(done: subprocess.CompletedProcess[str]) -> list[str]:
    return sorted(line for line in done.stdout.splitlines() if line.startswith("MAIN"))


# --- the scripts themselves -----------------------------------------------------------------


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_parse_are_strict_and_say_what_they_need(name: str) -> None:
    assert subprocess.run(["bash", "-n", ROOT / name], check=False).returncode == 0
    text = (ROOT / name).read_text()
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in text
    assert "# Needs: " in text
    assert os.access(ROOT / name, os.X_OK)


@pytest.mark.parametrize("name", SCRIPTS)
def test_shellcheck_is_content(name: str) -> None:
    done = subprocess.run(
        [SHELLCHECK, "-x", name], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["launch/local_multiprocess.sh", "launch/tpu_vm.sh"])
def test_help_explains_and_does_nothing(run: Run, name: str) -> None:
    done = run(name, "--help")
    assert done.returncode == 0
    for word in ("usage: bash", "example:", "JMREC_PYTHON"):
        assert word in done.stdout


# --- several processes here -----------------------------------------------------------------


def test_local_processes_are_told_their_places(run: Run) -> None:
    name = "launch/local_multiprocess.sh"
    done = run(name, "2", "--workdir", "a b", codes=("0", "0"), JMREC_DEVICES="4")
    assert done.returncode == 0, done.stderr
    first, second = mains(done)
    assert first.startswith("MAIN 0 | 127.0.0.1:")
    assert second == first.replace("MAIN 0", "MAIN 1")
    assert first.split(" 2 - ")[1] == (
        "--xla_force_host_platform_device_count=4 | run --workdir a b"
    )


@pytest.mark.parametrize(
    ("codes", "restarts", "code", "starts"),
    [
        (("2", "2"), "0", 2, 2),
        (("137", "75"), "0", 75, 2),  # 0 was killed: the other says that the run can go on
        (("75 0", "137 0"), "1", 0, 4),
        (("75 75 75", "75 75 75"), "1", 75, 4),
        (("2 0", "2 0"), "1", 2, 2),
    ],
)
def test_local_processes_are_started_again_when_they_ask_for_it(
    run: Run, codes: tuple[str, str], restarts: str, code: int, starts: int
) -> None:
    words = ("launch/local_multiprocess.sh", "2", "--workdir", "x")
    done = run(*words, codes=codes, JMREC_RESTARTS=restarts)
    assert done.returncode == code, done.stderr
    assert len(mains(done)) == starts


@pytest.mark.parametrize(("name", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_reaches_all_local_processes_and_ends_the_script(
    checkout: Path, tmp_path: Path, name: signal.Signals, code: int
) -> None:
    env = {**os.environ, "JMREC_PYTHON": sys.executable, "JMREC_RESTARTS": "5"}
    for process in range(2):
        (tmp_path / f"codes{process}").write_text("sleep 0")
        env[f"CODES{process}"] = str(tmp_path / f"codes{process}")
    command = ["bash", str(checkout / "launch/local_multiprocess.sh"), "2", "--workdir", "x"]
    child = subprocess.Popen(
        command, env=env, cwd=tmp_path, stdout=subprocess.PIPE, text=True,
        # Ignored where the tests themselves were started by "&", and bash keeps it so.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert child.stdout is not None
    ready = 0
    for line in child.stdout:
        ready += line == "READY\n"
        if ready == 2:
            child.send_signal(name)
            break
    rest = child.communicate(timeout=60)[0]
    assert child.returncode == code
    assert "started again" not in rest


@pytest.mark.parametrize("words", [(), ("0",), ("two", "--workdir", "x")])
def test_a_wrong_number_of_processes_is_a_sentence(run: Run, words: tuple[str, ...]) -> None:
    done = run("launch/local_multiprocess.sh", *words)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1


# --- SLURM ----------------------------------------------------------------------------------


@pytest.fixture
def slurm(checkout: Path, tmp_path: Path, run: Run) -> Run:
    """Run the script as SLURM would: a copy from elsewhere, under stand-ins for its commands."""
    spool = checkout / "spool"
    spool.mkdir()
    shutil.copy(ROOT / "launch/slurm.sbatch", spool / "slurm_script")
    script(tmp_path / "bin/srun", 'echo "SRUN $1"; shift; exec "$@"\n')
    script(tmp_path / "bin/scontrol", 'echo "SCONTROL $*"\n')

    def call(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
        given = {"SLURM_JOB_ID": "77", "SLURM_SUBMIT_DIR": str(checkout)}
        return run("spool/slurm_script", *words, **given | env)  # type: ignore[arg-type]

    return call


def test_slurm_starts_a_process_a_task_that_finds_the_others(slurm: Run) -> None:
    done = slurm("--workdir", "runs/x y", codes="0", SLURM_NTASKS="8")
    assert done.returncode == 0, done.stderr
    assert "SRUN --kill-on-bad-exit=0" in done.stdout
    assert mains(done) == ["MAIN  | - - auto - | run --workdir runs/x y"]
    assert "SCONTROL" not in done.stdout
    alone = slurm("--workdir", "x", codes="0")
    assert mains(alone) == ["MAIN  | - - - - | run --workdir x"]


def test_slurm_puts_the_array_task_s_number_in(slurm: Run) -> None:
    done = slurm(
        *("--config.seed={}", "--workdir", "runs/seed{}"), codes="0", SLURM_ARRAY_TASK_ID="3"
    )
    assert mains(done) == ["MAIN  | - - - - | run --config.seed=3 --workdir runs/seed3"]


@pytest.mark.parametrize(
    ("code", "tasks", "again"),
    [(0, 1, False), (2, 1, False), (1, 1, False), (75, 1, True), (75, 2, True), (137, 1, False),
     (137, 2, True)],
)  # fmt: skip
def test_slurm_requeues_what_asks_for_it_and_nothing_else(
    slurm: Run, code: int, tasks: int, again: bool
) -> None:
    numbers = {"SLURM_RESTART_COUNT": "4", "SLURM_NTASKS": str(tasks)}
    done = slurm("--workdir", "x", codes=str(code), **numbers)
    assert done.returncode == code
    assert ("SCONTROL requeue 77" in done.stdout) == again


def test_slurm_requeues_no_more_than_it_may(slurm: Run) -> None:
    done = slurm("--workdir", "x", codes="75", SLURM_RESTART_COUNT="5", JMREC_RESTARTS="5")
    assert done.returncode == 2
    assert "SCONTROL" not in done.stdout
    assert done.stderr.startswith("error: started 5 times")


def test_slurm_teaches_and_says_where_there_is_none(slurm: Run, tmp_path: Path) -> None:
    done = slurm("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "sbatch --nodes=2" in done.stdout
    assert "#SBATCH" not in done.stdout
    (tmp_path / "bin/srun").unlink()
    if shutil.which("srun") is None:
        assert slurm("--workdir", "x").stderr.startswith("error: srun is not on the PATH")


def test_slurm_without_words_is_a_sentence(slurm: Run) -> None:
    done = slurm()
    assert done.returncode == 2
    assert done.stderr.startswith("error: say what to run")


def test_the_job_s_directives_allow_what_the_script_counts_on() -> None:
    lines = (ROOT / "launch/slurm.sbatch").read_text().splitlines()
    directives = [line for line in lines if line.startswith("#SBATCH ")]
    assert "#SBATCH --requeue" in directives
    assert any(line.startswith("#SBATCH --signal=TERM@") for line in directives)
    # SLURM reads them up to the first command only.
    command = next(n for n, line in enumerate(lines) if line and not line.startswith("#"))
    assert max(lines.index(line) for line in directives) < command


# --- Cloud TPU ------------------------------------------------------------------------------


def test_a_tpu_worker_goes_on_while_it_is_asked_to(run: Run) -> None:
    done = run("launch/tpu_vm.sh", "here", "--workdir", "x", codes="75 75 2 0")
    assert done.returncode == 2, done.stderr
    assert mains(done) == ["MAIN  | - - auto - | run --workdir x"] * 3
    done = run("launch/tpu_vm.sh", "here", "--workdir", "x", codes="75 75", JMREC_RESTARTS="1")
    assert done.returncode == 75


def test_all_workers_of_a_slice_get_the_same_words(run: Run, tmp_path: Path) -> None:
    script(tmp_path / "bin/gcloud", 'printf "%s\\n" "$@"\n')
    words = ("slice", "zone-a", "--config", "a b.py:size=base", "--workdir", "/mnt/x")
    # This machine's own JMREC_PYTHON is nothing to the workers.
    done = run(
        "launch/tpu_vm.sh", *words, JMREC_RESTARTS="7", JMREC_REMOTE_PYTHON="/opt/a b/python"
    )
    assert done.returncode == 0, done.stderr
    *head, command = done.stdout.splitlines()[1:]
    assert head == ["compute", "tpus", "tpu-vm", "ssh", "slice", "--zone=zone-a", "--worker=all"]
    assert command == (
        "--command=cd jmrec && JMREC_PYTHON=/opt/a\\ b/python"
        " JMREC_RESTARTS=7 bash launch/tpu_vm.sh here --config a\\ b.py:size=base --workdir /mnt/x"
    )


def test_a_slice_without_words_or_gcloud_is_a_sentence(run: Run) -> None:
    assert run("launch/tpu_vm.sh", "slice").stderr.startswith("error: say which slice")
    if shutil.which("gcloud") is None:
        done = run("launch/tpu_vm.sh", "slice", "zone", "--workdir", "x")
        assert done.stderr.startswith("error: gcloud is not on the PATH")


# --- Kubernetes -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def jobset() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "launch/jobset.yaml").read_text())


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return json.loads(Path(__file__).with_name("jobset.schema.json").read_text())


def test_the_jobset_has_the_fields_of_a_jobset(
    jobset: dict[str, Any], schema: dict[str, Any]
) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(jobset, schema)
    wrong = copy.deepcopy(jobset)
    wrong["spec"]["replicatedJobs"][0]["template"]["spec"]["paralelism"] = 2
    with pytest.raises(jsonschema.ValidationError, match="paralelism"):
        jsonschema.validate(wrong, schema)


def test_the_jobset_s_pods_are_one_cluster(jobset: dict[str, Any]) -> None:
    (replicated,) = jobset["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    (pod,) = job["template"]["spec"]["containers"]
    env = {each["name"]: each.get("value") for each in pod["env"]}
    assert set(env) == set(EXPLICIT)
    settings = read_settings(env | {"JMREC_PROCESS": "1"})
    assert settings is not None
    assert settings.processes == job["parallelism"] == job["completions"]
    host, port = str(settings.coordinator).split(":")
    name = jobset["metadata"]["name"]
    assert host == f"{name}-{replicated['name']}-0-0.{name}"
    assert pod["ports"] == [{"containerPort": int(port)}]
    assert "--workdir" in pod["args"]


def test_the_jobset_fails_on_1_and_2_and_starts_again_on_75(jobset: dict[str, Any]) -> None:
    policy = jobset["spec"]["failurePolicy"]
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    (rule,) = job["podFailurePolicy"]["rules"]
    assert (rule["action"], rule["onExitCodes"]["values"]) == ("FailJob", [1, 2])
    assert rule["onExitCodes"]["containerName"] == job["template"]["spec"]["containers"][0]["name"]
    assert [(each["action"], each["onJobFailureReasons"]) for each in policy["rules"]] == [
        ("FailJobSet", ["PodFailurePolicy"])
    ]
    # All else, 75 among it, fails the job at once, and the set is then started again whole.
    assert job["backoffLimit"] == 0
    assert policy["maxRestarts"] >= 10
