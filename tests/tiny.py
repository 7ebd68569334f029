"""The smallest towers: what tests of whole runs put behind ``tpad:size=tiny``.

All have the same shapes, so that what one test compiles, the others read from the cache.
"""

TOWERS = ("vision", "knowledge", "transition", "distill")
STACKS = ("knowledge.stack", "knowledge.vision.stack", "transition.stack", "student.stack")
SIZES = ("width=32", "layers=1", "mlp=64")
SHAPES = [
    "--config.data.vocab=320", "--config.data.picture_size=16", "--config.data.window=12",
    "--config.data.max_tokens=8",  # shorter than each field: as long in every shop
    "--config.knowledge.vision.merge=1",
    *(f"--config.{stack}.{size}" for stack in STACKS for size in SIZES),
    *(f"--config.{stage}.train.batch_size=16" for stage in (*TOWERS, "student")),
]  # fmt: skip


def updates(count: int, *stages: str) -> list[str]:
    """Return the settings by which the stages, all towers by default, get so many updates."""
    return [f"--config.{stage}.train.steps={count}" for stage in stages or TOWERS]
