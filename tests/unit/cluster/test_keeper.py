"""The keeper says what its child could not, whatever the child died of."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from jmrec.cluster.settings import KEPT

SAY = (
    "import json, os, signal, sys\n"
    f"def place(**what): os.write(int(os.environ['{KEPT}']), json.dumps(what).encode() + b'\\n')\n"
    "def say(text): print(text, file=sys.stderr, flush=True)\n"
    "place(waited=300)\n"
)
ABORT = "say('F1125 fatal: stack trace'); say('    @ 0x1'); os.kill(os.getpid(), signal.SIGABRT)\n"


def start(program: str) -> subprocess.Popen[str]:
    code = (
        "import sys; from jmrec.cluster.keeper import keep\n"
        "code = keep(['a', 'b'], ['-c', sys.argv[1]])\n"
        "sys.exit(30 if 'jax' in sys.modules else code)"
    )
    command = [sys.executable, "-c", code, SAY + program]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def keep(program: str) -> tuple[int, list[str]]:
    child = start(program)
    _, said = child.communicate(timeout=120)
    return child.returncode, said.splitlines()


@pytest.fixture
def coordinator() -> Iterator[socket.socket]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening


def joined(process: int, port: int) -> str:
    return f"place(process={process}, processes=3, coordinator='127.0.0.1:{port}')\n"


@pytest.mark.parametrize("code", [0, 2, 75, 130])
def test_a_child_that_has_said_all_is_passed_on(code: int) -> None:
    program = f"say(' '.join(sys.argv[1:])); say('F is no fatal line'); sys.exit({code})"
    assert keep(program) == (code, ["a b", "F is no fatal line"])


def test_an_abort_because_process_0_is_gone_becomes_one_sentence(
    coordinator: socket.socket,
) -> None:
    port = coordinator.getsockname()[1]
    coordinator.close()
    assert keep("say('before')\n" + joined(2, port) + ABORT) == (
        75,
        [
            "before",
            "jmrec: process 0 of 3 is gone; start the same command again, in all processes, to "
            "go on.",
        ],
    )


@pytest.mark.parametrize("process", [0, 1])
def test_an_abort_of_its_own_is_shown_whole(coordinator: socket.socket, process: int) -> None:
    port = coordinator.getsockname()[1]
    code, said = keep(joined(process, port) + ABORT)
    assert code == 128 + signal.SIGABRT
    assert said == ["F1125 fatal: stack trace", "    @ 0x1"]


def test_processes_that_do_not_come_together_are_a_sentence() -> None:
    code, (said,) = keep(ABORT)
    assert code == 75
    assert said.startswith("jmrec: the processes of this run did not come together (300 s);")


def test_a_sigterm_is_passed_on_once_and_asks_for_another_start() -> None:
    child = start("print('ready', flush=True); import time; time.sleep(100)")
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    child.terminate()
    _, said = child.communicate(timeout=60)
    assert child.returncode == 75
    assert said.splitlines()[0].startswith("jmrec: SIGTERM; what was finished is kept.")


def test_a_child_does_not_outlive_its_keeper() -> None:
    program = (
        "from jmrec.cluster import member\n"
        "print(os.getpid(), flush=True)\n"
        "member._tell({'waited': 1})\n"
        "import time; time.sleep(100)\n"
    )
    child = start(program)
    assert child.stdout is not None
    child.stdout.readline()
    child.kill()
    # The grandchild holds the same standard output: it ends when that one does.
    assert child.stdout.read() == ""
