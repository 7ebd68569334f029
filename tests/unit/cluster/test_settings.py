"""A process learns of its cluster from the environment, or is told what is wrong with that."""

import pytest

from jmrec.cluster.settings import Settings, read_settings
from jmrec.errors import UserError

TWO = {"JMREC_COORDINATOR": "[::1]:1234", "JMREC_PROCESSES": "2", "JMREC_PROCESS": "1"}


def test_a_run_is_alone_unless_it_is_told_otherwise() -> None:
    assert read_settings({"SLURM_NTASKS": "4", "SLURM_PROCID": "1"}) is None
    assert read_settings({**TWO, "JMREC_PROCESSES": "1", "JMREC_PROCESS": "0"}) is None
    assert read_settings(dict.fromkeys(TWO, "")) is None


def test_told_outright_or_found_out_by_jax() -> None:
    assert read_settings(TWO) == Settings("[::1]:1234", 2, 1, 30.0)
    found = read_settings({"JMREC_CLUSTER": "auto", "JMREC_SILENCE": "45"})
    assert found == Settings(None, None, None, 45.0)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"JMREC_CLUSTER": "slurm"}, "JMREC_CLUSTER=slurm is not understood; say auto"),
        ({"JMREC_CLUSTER": "auto", "JMREC_PROCESS": "1"}, "are both set"),
        ({"JMREC_PROCESS": "1"}, "JMREC_PROCESS is set and JMREC_COORDINATOR is not"),
        ({**TWO, "JMREC_PROCESS": "2"}, "is not below JMREC_PROCESSES=2; count from 0"),
        ({**TWO, "JMREC_PROCESS": "-1"}, "is no number of 0 or more"),
        ({**TWO, "JMREC_PROCESSES": "many"}, "is no number of 1 or more"),
        ({**TWO, "JMREC_COORDINATOR": "host"}, "has no port; say HOST:PORT"),
        ({**TWO, "JMREC_SILENCE": "1"}, "is no number of 5 or more"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(given: dict[str, str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        read_settings(given)
