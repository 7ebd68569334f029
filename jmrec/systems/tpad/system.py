"""The system "tpad": an item reader and a Transfer tower teach session students.

Its stages are data, those of its item reader up to "knowledge", read, transition, distill, embed,
teach (where needed), students and evaluate. Big models train in the first stages; a student needs
only their feature table.

References:
  Su et al., Distilling Transitional Pattern to Large Language Models for Multimodal
  Session-based Recommendation, https://arxiv.org/abs/2504.10538
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np

from jmrec.config import ConfigDict
from jmrec.convert.families import Pretrained
from jmrec.data.forgotten import Left
from jmrec.data.item_arrays import VIEWS, view
from jmrec.data.schema import Dataset, Items
from jmrec.errors import UserError
from jmrec.evaluation.rankers.neural import CompiledEncoder, NeuralRanker
from jmrec.features import Standardiser
from jmrec.files import read_json
from jmrec.lock import Changes
from jmrec.models.readers.alignment import alignment
from jmrec.models.sessions.table import session_model
from jmrec.models.sessions.transfer import TransferConfig
from jmrec.systems.data import RunData
from jmrec.systems.evaluate import evaluation_stage, student_entries
from jmrec.systems.feature_tables import read_standardiser, write_tables
from jmrec.systems.readers.blocks import Blocks
from jmrec.systems.readers.lowrank import LowRankReader
from jmrec.systems.readers.reader import TokenReader
from jmrec.systems.readers.table import make_reader
from jmrec.systems.rule_teacher import RuleTeacher
from jmrec.systems.stages import Stage
from jmrec.systems.students import Students, TeacherSource
from jmrec.systems.system import Entry, PlannedStep, Sizes
from jmrec.systems.tpad.features import HEADS, TowerFeatures
from jmrec.systems.tpad.plan import planned_steps
from jmrec.systems.tpad.tasks import (
    alignment_config,
    distill_task,
    transfer_config,
    transition_task,
)
from jmrec.systems.work import Work
from jmrec.tasks.session import Teacher
from jmrec.types import Model

TEACHER = "teacher"
"""The Transfer tower's row in the table of results."""
CONTENT = "Knowledge tower"
PARTS = "parts"


class Tpad:
    """TPAD on one workdir.

    Args:
      work: The run, with a config of experiments/tpad.py.

    Raises:
      UserError: The settings contradict each other.
    """

    name: ClassVar[str] = "tpad"
    since: ClassVar[tuple[str, ...]] = ("context.gap", "backbone.mode")

    def __init__(self, work: Work) -> None:
        config = work.config
        self.work, self.data = work, RunData(work)
        self.reader = make_reader(work, self.data)
        self.features = TowerFeatures(work, self.data, self.reader, self._make)
        if config.transition.prompt == "tokens" and not isinstance(self.reader, TokenReader):
            raise UserError(
                f"backbone.mode={config.backbone.mode} keeps one vector of an item, so that "
                "transition.prompt must be items; change one of them."
            )
        self.rules = RuleTeacher(work, self.data, self.content, ("read",))
        self.students = Students(
            work, self.data, self.features,
            {"transfer": TeacherSource(("read", "transition"), self._live_teacher),
             "rules": self.rules.source},
            (CONTENT,),
        )  # fmt: skip

    # ---- the stages -------------------------------------------------------------------------

    def stages(self, command: Sequence[str] = ()) -> list[Stage]:
        """Return all stages in order; see `jmrec.systems.system.System`."""
        c = self.work.config
        seed = {"seed": c.seed}
        transition = {"transition": c.transition, "context": c.context, **seed}
        stages = [
            self.data.stage(self._fit_reader, **self.reader.data_settings),
            *self.reader.stages(),
            Stage("read", {"views": VIEWS, **seed}, ("knowledge",), self._read),
            Stage("transition", transition, ("read",), self._transition),
            Stage("distill", {"distill": c.distill, **seed}, ("read", "transition"), self._distill),
            Stage("embed", {}, ("read", "distill"), self._embed),
        ]
        if self.students.follows("rules"):
            stages.append(self.rules.stage())
        stages += self.students.stages()
        return [*stages, evaluation_stage(self, stages, command)]

    def _fit_reader(self, folder: Path) -> None:
        self.reader.fit(folder, self.data.dataset.items, self.data.train_rows)

    def _read(self, folder: Path) -> None:
        """Stage "read": the Knowledge tower's e of the whole catalogue, in each view."""
        seed, arrays = self.work.config.seed, self.reader.arrays
        ids, tower = self.data.dataset.items.ids, self._stage_hash("knowledge")
        found = {}
        for name in VIEWS:
            kept = Blocks(folder / PARTS, ids, {"tower": tower}, f"{name} ")
            found[name] = self.reader.encode(view(arrays, name, seed), name, kept)
        self._refuse_blindness(found)
        known = Standardiser.fit(found["both"], self.data.train_rows)
        alone = {
            name: Standardiser.fit(found[name], self.data.train_rows)
            for name in ("text", "picture")
        }
        # A control shows the student other pictures through the very same features.
        out = {name: alone.get(name, known)(array) for name, array in found.items()}
        out |= {"mean": known.mean[None], "scale": known.scale[None]}
        write_tables(folder, ids, out, self.reader.provenance)
        kept.clear()

    def _refuse_blindness(self, e: Mapping[str, np.ndarray]) -> None:
        """Raise UserError where other pictures, or other texts, give every item the same e."""
        arrays = self.reader.arrays
        for part, array in (("pictures", "picture"), ("texts", "text")):
            shown = view(arrays, f"{part} permuted", self.work.config.seed)[array]
            moved = not np.array_equal(shown, arrays[array])
            if moved and np.array_equal(e["both"], e[f"{part} permuted"]):
                raise UserError(
                    f"the Knowledge tower does not see {part}: permuting them across items changes "
                    "nothing that it says of any; train it longer, or look at its settings."
                )

    def _transition(self, folder: Path) -> None:
        """Stage "transition": the Transfer tower, on sessions of cached features."""
        c, e = self.work.config.transition, self.features.e["both"]
        vectors = None
        # The Knowledge tower's token vectors, where the Transfer tower can begin with them.
        if self.tokens is not None and c.stack.width == self.work.config.knowledge.stack.width:
            vectors = self._token_reader.token_vectors()
        task = transition_task(
            self.work.config, self.transfer_config, e, self.data.train_items, self.tokens, vectors
        )
        read = {"features": e, "tokens": self.tokens}
        self.work.fit(
            folder, "transition", self.data.task(task), c.train,
            self.data.sessions(c.train, packed=True),
            fingerprint=self.data.batches_fingerprint(c.train, packed=True),
            evaluate=self.data.validate(
                CompiledEncoder(task.model, rules=self.work.config.rules), read
            ),
        )  # fmt: skip

    def _distill(self, folder: Path) -> None:
        """Stage "distill": heads k and t on e, aligned with the Transfer tower."""
        train, teacher = self.work.config.distill.train, self._live_teacher()
        task = distill_task(
            self.work.config, alignment_config(self.work.config, self.reader.features),
            (teacher.model, teacher.params), teacher.e, self.data.train_items, teacher.tokens,
        )  # fmt: skip
        batches = self.data.sessions(train, packed=True)
        fingerprint = self.data.batches_fingerprint(train, packed=True)
        self.work.fit(
            folder, "distill", self.data.task(task), train, batches, fingerprint=fingerprint
        )

    def _embed(self, folder: Path) -> None:
        """Stage "embed": k and t of the whole catalogue, in each view, with provenance."""
        out: dict[str, np.ndarray] = {}
        for name in VIEWS:
            out |= {f"{name}/{head}": x for head, x in self._heads(self.features.e[name]).items()}
        known = self.data.train_rows
        fitted = {name: Standardiser.fit(out[f"both/{name}"], known) for name in HEADS}
        for name in out:
            source, head = name.split("/")
            alone = source in ("text", "picture")
            scaler = Standardiser.fit(out[name], known) if alone else fitted[head]
            out[name] = scaler(out[name])
        for head, scaler in fitted.items():
            out |= {f"{head}/mean": scaler.mean[None], f"{head}/scale": scaler.scale[None]}
        write_tables(folder, self.data.dataset.items.ids, out)

    # ---- what the stages left, read back --------------------------------------------------------

    def _stage_hash(self, stage: str) -> str:
        return str(read_json(self.work.workdir / stage / "stage.json")["hash"])

    @cached_property
    def _alignment(self) -> Model:
        return alignment(alignment_config(self.work.config, self.reader.features))

    @cached_property
    def _compiled_heads(self) -> Callable[..., Any]:
        return jax.jit(self._alignment.fns["heads"])

    def _heads(self, e: np.ndarray) -> dict[str, np.ndarray]:
        """Return "k" and "t" of standardised e [V, D]."""
        heads, _ = self._compiled_heads(self.work.params("distill", self._alignment), e)
        return {name: np.asarray(head) for name, head in zip(HEADS, heads, strict=True)}

    def _make(self, arrays: Mapping[str, np.ndarray], label: str) -> dict[str, np.ndarray]:
        """Return "e", "k" and "t" of items, standardised as the catalogue's."""
        workdir = self.work.workdir
        e = read_standardiser(workdir / "read")(self.reader.encode(arrays, label))
        heads = self._heads(e)
        return {"e": e} | {
            name: read_standardiser(workdir / "embed", f"{name}/")(head)
            for name, head in heads.items()
        }

    @property
    def _token_reader(self) -> TokenReader:
        assert isinstance(self.reader, TokenReader)  # see __init__
        return self.reader

    @cached_property
    def tokens(self) -> dict[str, np.ndarray] | None:
        """What the Transfer tower reads of the items where that is all their tokens, else None."""
        prompt = self.work.config.transition.prompt
        return None if prompt == "items" else self._token_reader.tokens()

    @property
    def transfer_config(self) -> TransferConfig:
        """The Transfer tower's size."""
        tokens = None
        if self.work.config.transition.prompt == "tokens":
            tokens = self._token_reader.item_tokens()
        return transfer_config(self.work.config, self.reader.features, self.data.context, tokens)

    def _live_teacher(self) -> Teacher:
        """Return the Transfer tower as a teacher."""
        model = session_model(self.transfer_config)
        params = self.work.params("transition", model)
        return Teacher(model, params, self.features.e["both"], self.tokens)

    # ---- a finished run -------------------------------------------------------------------------

    def teacher(self, added: Mapping[str, np.ndarray] | None = None) -> NeuralRanker:
        """Return the Transfer tower as a Ranker, prepared; see `jmrec.systems.system.Ranks`."""
        teacher = self._live_teacher()
        e = teacher.e if not added else np.concatenate([teacher.e, added["e"]])
        ranker = CompiledEncoder(teacher.model, rules=self.work.config.rules).ranker(
            "Transfer tower", teacher.params
        )
        ranker.prepare({"features": e, "tokens": teacher.tokens})
        return ranker

    def content(self, added: Mapping[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
        """Return the features of the content rules; see `jmrec.systems.system.Ranks`."""
        e = self.features.e["both"]
        return {CONTENT: np.concatenate([e, added["e"]]) if added else e}

    def without(
        self, left: Left, dataset: Dataset, users: Collection[str], changes: Changes
    ) -> None:
        """Write the soft labels anew; see `jmrec.systems.system.KeepsPeople`."""
        if self.students.follows("rules"):
            self.rules.without(left, dataset, changes)

    def rankers(self) -> list[Entry]:
        """Return students and teacher."""
        teacher = Entry(TEACHER, "teacher", (self.work.config.seed,), lambda _: self.teacher())
        return [*student_entries(self.students), teacher]

    def reader_parameters(self) -> int:
        """Return how many numbers the Knowledge tower has, pretrained ones included."""
        return self.reader.parameters

    def read_new(self, items: Items) -> dict[str, np.ndarray]:
        """Return "e", "k" and "t" of new items."""
        return self._make(self.reader.read(items), "new items")

    def tables_hash(self) -> str:
        """Return the hash of stage "embed"."""
        return self._stage_hash("embed")

    def merged(self) -> Pretrained:
        """Return the backbone with its trained updates; see `jmrec.systems.system.Merges`."""
        if not isinstance(self.reader, LowRankReader):
            raise UserError(
                f"{self.work.workdir} trained no low-rank updates of a backbone (mode=lora), so "
                "that there is nothing to merge; convert the source itself."
            )
        return self.reader.merged()

    @classmethod
    def plan_steps(
        cls, config: ConfigDict, sizes: Sizes
    ) -> Mapping[str, Callable[[], PlannedStep]]:
        """Return the training steps from shapes alone; see `jmrec.systems.system.System`."""
        return planned_steps(config, sizes)
