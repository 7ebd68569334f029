"""The mirror of a run in Weights & Biases."""

import io
import os
import threading
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jmrec.errors import UserError
from jmrec.tracking.jsonl import METRICS
from jmrec.tracking.mirror import Outcome, first_line

if TYPE_CHECKING:
    from PIL import Image

WANDB_BEGIN, WANDB_END = 30.0, 60.0
"""How many seconds to wait for W&B to begin, and at the end; a step never waits."""
WANDB_MODES = ("disabled", "offline", "online")


def _of_one_size(encoded: Sequence[bytes]) -> "list[Image.Image]":
    """Return pictures on white ground of one size, without which W&B shows them distorted."""
    from PIL import Image

    found = [Image.open(io.BytesIO(each)).convert("RGB") for each in encoded]
    size = max(each.width for each in found), max(each.height for each in found)
    grounds = [Image.new("RGB", size, "white") for _ in found]
    for ground, each in zip(grounds, found):
        ground.paste(each)
    return grounds


class Wandb:
    """One run there, by one id however often it is resumed; see `jmrec.tracking.mirror.Writer`.

    Args:
      workdir: The run's folder; the id is kept in ``wandb_id`` there.
      settings: ``mode`` (offline or online), and where wanted ``project``, ``name``, ``group`` and
        ``tags``.
      config: The run's flat configuration.
      warn: Prints one warning.

    Raises:
      UserError: The mode is unknown.
    """

    title = "Weights & Biases"

    def __init__(
        self,
        workdir: Path,
        settings: Mapping[str, Any],
        config: Mapping[str, Any],
        warn: Callable[[str], None],
    ) -> None:
        self._workdir, self._config, self._warn = workdir, dict(config), warn
        self._settings = dict(settings)
        self._run: Any = None
        self._stages: set[str] = set()
        self._mode = wandb_mode(settings)
        self.id = self._kept_id()
        metrics = workdir / METRICS
        self._lines = len(metrics.read_bytes().splitlines()) if metrics.is_file() else 0
        self._offline = self._mode == "offline"

    @property
    def patience(self) -> float:
        """How many seconds a run waits for it at its end."""
        return WANDB_END

    def _kept_id(self) -> str:
        """Return the run's id of an earlier start, or make one and keep it."""
        path = self._workdir / "wandb_id"
        if path.exists() and (kept := path.read_text(encoding="utf-8").strip()):
            return kept
        # An agent of a W&B sweep has chosen the id already.
        made = os.environ.get("WANDB_RUN_ID") or uuid.uuid4().hex[:12]
        path.write_text(made, encoding="utf-8")
        return made

    def begin(self) -> None:
        """Begin the run; offline where W&B cannot be reached within the time limit."""
        try:
            self._run = self._begin(self._mode)
        except Exception as error:
            if self._mode == "offline":
                raise
            self._run, self._offline = self._begin("offline"), True
            self._warn(
                f"Weights & Biases cannot be reached ({first_line(error)}); its run is written "
                f"offline, `wandb sync {self._workdir / 'wandb'}/offline-run-*` brings it there."
            )

    def _begin(self, mode: str) -> Any:
        """Return what wandb.init returns; raise what it raises, or TimeoutError."""
        begun: list[Any] = []
        late = threading.Event()
        settings = self._settings
        name = settings.get("name") or os.environ.get("WANDB_NAME") or self._workdir.resolve().name
        system = self._config.get("system")
        tags = [*(settings.get("tags") or ()), *([str(system)] if system else [])]

        def begin() -> None:
            try:
                import wandb  # half a second to import, and not needed where it is disabled

                if mode == "online" and hasattr(wandb, "setup"):
                    ask(wandb.setup().settings.base_url, WANDB_BEGIN)
                run = wandb.init(
                    id=self.id,
                    # Offline there is nobody to ask for the earlier part: the id joins the two.
                    resume="allow" if mode == "online" else None,
                    mode=mode,  # type: ignore[arg-type]
                    reinit="create_new",  # several runs may be open in one process
                    project=settings.get("project") or "jmrec",
                    name=name,
                    # A sweep says its own name by WANDB_RUN_GROUP.
                    group=settings.get("group") or None,
                    tags=tags or None,
                    dir=str(self._workdir),
                    config=self._config,
                    settings=wandb.Settings(silent=True, console="off", init_timeout=WANDB_BEGIN),
                )
                if late.is_set():
                    run.finish()
                begun.append(run)
            except Exception as error:
                begun.append(error)

        # Its own limit does not hold for everything that it does.
        thread = threading.Thread(target=begin, name="wandb-init", daemon=True)
        thread.start()
        seconds = WANDB_BEGIN if mode == "online" else WANDB_END  # no server: the machine is slow
        thread.join(1.2 * seconds)
        if not begun:
            late.set()
            raise TimeoutError(f"no answer within {seconds:g} s")
        if isinstance(begun[0], Exception):
            raise begun[0]
        return begun[0]

    def log(self, stage: str, step: int, values: Mapping[str, Any]) -> None:
        """Draw one line's numbers; steps count per stage, so each has a step of its own."""
        prefix = f"{stage}/" if stage else ""
        if stage not in self._stages:
            self._stages.add(stage)
            self._run.define_metric(f"{prefix}step")
            self._run.define_metric(f"{prefix}*", step_metric=f"{prefix}step")
        self._draw(
            {f"{prefix}{name}": each for name, each in values.items() if each is not None}
            | {f"{prefix}step": step}
        )

    def _draw(self, values: Mapping[str, Any]) -> None:
        """Send one row. Rows of an offline run are numbered on from those of its earlier starts.

        Online the server knows how many there are; of rows with one number it keeps the first.
        """
        more = {"step": self._lines} if self._offline else {}
        self._run.log(dict(values), **more)
        self._lines += 1

    def conclude(self, outcome: Outcome) -> None:
        """Give the run its figures, table, report (as media and as an artefact) and examples."""
        import wandb

        split = outcome.split
        self._run.summary.update(
            {f"{split}/{name}": each for name, each in outcome.summary.items()}
        )
        table = wandb.Table(
            columns=list(outcome.columns), data=[list(row) for row in outcome.rows],
            allow_mixed_types=True,
        )  # fmt: skip
        media: dict[str, Any] = {
            f"{split}/results": table,
            f"{split}/report": wandb.Html(str(outcome.report), inject=False),
        }
        pictures = [card for card in outcome.cards if card.picture]
        if pictures:
            media[f"{split}/examples"] = [
                wandb.Image(picture, caption=card.caption)
                for card, picture in zip(pictures, _of_one_size([x.picture for x in pictures]))
            ]
        self._draw(media)
        report = wandb.Artifact(f"report-{self.id}-{split}", type="report")
        report.add_file(str(outcome.report), name="report.html")
        self._run.log_artifact(report)

    def end(self) -> None:
        """End the run."""
        self._run.finish()


def ask(address: str, seconds: float) -> None:
    """Ask a server for anything at all, before W&B does.

    Where it never answers, W&B waits on behind its own time limit, and holds the run's id.

    Args:
      address: Its address.
      seconds: How long to wait.

    Raises:
      OSError: There is no answer.
    """
    request = urllib.request.Request(address, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=seconds):
            pass
    except urllib.error.HTTPError:
        pass  # an answer


def wandb_mode(settings: Mapping[str, Any] | None) -> str:
    """Return the mode that settings name.

    Raises:
      UserError: It is none.

    Example:
      >>> wandb_mode({"mode": "offline"}), wandb_mode(None)
      ('offline', 'disabled')
    """
    mode = str((settings or {}).get("mode") or "disabled")
    if mode not in WANDB_MODES:
        raise UserError(f'--config.wandb.mode="{mode}" is not one of {", ".join(WANDB_MODES)}.')
    return mode
