"""How often test was read: once for a stage, however often it was killed."""

from pathlib import Path

from jmrec.systems.evaluate import note_reading


def test_a_stage_that_was_killed_reads_test_once(tmp_path: Path) -> None:
    assert note_reading(tmp_path, "validation") == 0
    assert note_reading(tmp_path, "test", "stage-a") == 1
    assert note_reading(tmp_path, "test", "stage-a") == 1
    # Somebody asked again, and again; and other settings are another reading.
    assert [note_reading(tmp_path, "test") for _ in range(2)] == [2, 3]
    assert note_reading(tmp_path, "test", "stage-b") == 4
    assert note_reading(tmp_path, "validation") == 4


def test_a_half_written_line_is_no_reading(tmp_path: Path) -> None:
    note_reading(tmp_path, "test", "stage-a")
    with (tmp_path / "test_reads.jsonl").open("a") as file:
        file.write('{"split": "te')
    assert note_reading(tmp_path, "test", "stage-b") == 2
    assert len((tmp_path / "test_reads.jsonl").read_text().splitlines()) == 2
