"""A tenth of the attack on all that is read; by hand the whole, see attack.py."""

from pathlib import Path

from tests.integration import attack


def test_a_tenth_of_the_attack_is_answered_well(tmp_path: Path) -> None:
    said: list[str] = []
    count, wrong = attack.attack(tmp_path / "attack", seed=7, whole=False, say=said.append)
    assert count >= 60, said
    # Seconds are judged by hand, on a machine that does nothing else.
    assert [each for each in wrong if " s, undamaged " not in each] == []
