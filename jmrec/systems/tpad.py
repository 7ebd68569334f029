"""The system "tpad": data, vision, knowledge, read, transition, distill, embed, students, evaluate.

Before the students comes "teach", where one of them learns from the rules. Each stage is a method
that reads the workdir and writes its own folder. Big models train in the first stages; a student
needs the feature table and nothing else of them.

References:
  Su et al., Distilling Transitional Pattern to Large Language Models for Multimodal
  Session-based Recommendation, https://arxiv.org/abs/2504.10538
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jmrec.config import ConfigDict, choose, flatten, resolve_path
from jmrec.data.pipeline import item_batches, session_batches
from jmrec.data.prepared import prepare
from jmrec.data.schema import Items
from jmrec.data.toyshop import ToyShopConfig, write_toyshop
from jmrec.errors import UserError
from jmrec.evaluation.lessons import blend_of, out_of_fold
from jmrec.evaluation.protocol import ask, rank
from jmrec.evaluation.results import HR20, MRR20, SESSION
from jmrec.evaluation.students import Tower, TowerRanker
from jmrec.evaluation.summary import figures
from jmrec.features import Standardiser, read_features, write_features
from jmrec.files import write_json
from jmrec.models.layers import StackConfig
from jmrec.models.student import StudentConfig
from jmrec.sharding import make_mesh, process_rows
from jmrec.systems.catalogue import VIEWS, Reader, view
from jmrec.systems.fits import fit, train_config
from jmrec.systems.stages import Stage, seeded
from jmrec.systems.tables import write_tables
from jmrec.systems.towers import Towers
from jmrec.tasks.distill import LOWER, UPPER, DistillTask
from jmrec.tasks.knowledge import KnowledgeTask
from jmrec.tasks.session import (
    DISTILL,
    CachedTeacher,
    StudentTask,
    Teacher,
    id_rows,
    id_table_size,
)
from jmrec.tasks.transition import TransitionTask
from jmrec.tasks.vision import VisionTask, word_weights
from jmrec.tracking import Tracker
from jmrec.train import FitResult, Trainer
from jmrec.types import Params, Task

TEACHERS = ("transfer", "rules")
"""Whom a student may follow: the Transfer tower, live, or the blend of rules, out of fold."""
LESSONS = "lessons.safetensors"


class Tpad(Towers):
    """The system on one workdir: its stages.

    Args:
      config: From experiments/tpad.py.
      workdir: The run's folder.
      tracker: Metrics and messages.
    """

    def __init__(self, config: ConfigDict, workdir: Path, tracker: Tracker) -> None:
        super().__init__(config, workdir, tracker)
        self._trainers: dict[str, tuple[Trainer, Tower]] = {}

    # ---- the stages -----------------------------------------------------------------------

    def stages(self) -> list[Stage]:
        """Return the training stages in order; evaluation follows in jmrec.systems.report."""
        c = self.config
        # Before the towers are trained: each is read by a late stage only.
        choose("distill.lower", c.distill.lower, tuple(LOWER))
        choose("distill.upper", c.distill.upper, UPPER)
        choose("student.distill", c.student.distill, tuple(DISTILL))
        for name, variant in c.students.items():
            choose(f"students.{name}.teacher", variant.get("teacher", "transfer"), TEACHERS)
        seed = {"seed": c.seed}

        def settings(*names: str, **more: Any) -> dict[str, Any]:
            return {**{name: c[name] for name in names}, **more}

        stages = [
            Stage("data", settings("data"), (), self.prepare, alone=True),
            *self.reading_stages(),
            Stage("read", {"views": VIEWS, "seed": c.seed}, ("knowledge",), self.read),
            Stage(
                "transition", settings("transition", "context", **seed), ("read",), self.transition
            ),
            Stage("distill", settings("distill", **seed), ("read", "transition"), self.distill),
            Stage("embed", {}, ("read", "distill"), self.embed),
        ]
        learners = [name for name in c.students if self._taught_by_rules(name)]
        if learners:
            own = settings(**seed, **c.teach, top=c.student.top, window=c.data.window)
            stages.append(Stage("teach", own, ("read",), self.teach, alone=True))
        for name in c.students:
            inputs = ("embed", "teach") if name in learners else ("embed",)
            for each in c.seeds:
                own = {"student": c.student, "variant": c.students[name], "seed": each}
                known = seeded(f"students.{name}", each)
                run = self._student(name, each)
                stages.append(
                    Stage(known.name, own, inputs, run, group=known.group, seed=each,
                          path=known.path)
                )  # fmt: skip
        return stages

    def reading_stages(self) -> list[Stage]:
        """Return the stages in which items are read, up to the Knowledge tower."""
        c = self.config
        eye = {"vision": c.vision, "encoder": c.knowledge.vision, "out": c.knowledge.stack.width}
        return [
            Stage("vision", {**eye, "seed": c.seed}, ("data",), self.vision),
            Stage(
                "knowledge", {"knowledge": c.knowledge, "seed": c.seed}, ("vision",), self.knowledge
            ),
        ]

    def prepare(self, folder: Path) -> None:
        """Stage "data": the prepared data set, the item index, the tokenizer."""
        c = self.config.data
        toml: str | Path | None = c.toml
        if c.source == "toyshop":
            source = folder / "toyshop"
            if not (source / "truth.npz").is_file():
                sizes = c.toyshop.to_dict()
                # A ConfigDict has a method "items", so that no override could reach such a field.
                write_toyshop(source, ToyShopConfig(items=sizes.pop("n_items"), **sizes))
        elif c.dir is None:
            raise UserError("data=folder needs your catalogue folder: --config.data.dir=FOLDER.")
        else:
            source = resolve_path(c.dir)
        toml = None if toml is None else resolve_path(toml)
        dataset = prepare(
            source, toml, folder / "prepared", fractions=tuple(c.fractions), back=c.back,
            warn=self.tracker.warn,
        )  # fmt: skip
        write_json(self.workdir / "item_index.json", dataset.items.ids)
        rows = np.flatnonzero(dataset.train_count > 0)
        self._fit_reader(folder, dataset.items, rows)

    def _fit_reader(self, folder: Path, items: Items, rows: np.ndarray) -> None:
        Reader.fit(folder, items, rows, self.config.data)

    def vision(self, folder: Path) -> None:
        """Stage "vision": the Knowledge tower's eye, on the pictures of the training items."""
        c = self.config.vision
        rows = np.flatnonzero(self.train_items)
        arrays = {**self.arrays, "text": self.reader.words(self.arrays["text"])}
        task = self.vision_task(word_weights(arrays["text"][rows], self.reader.vocab))
        seen = rows[self.arrays["picture_ok"][rows]]
        if not len(seen):
            self.tracker.say("vision: no training item has a picture, so there is nothing to learn")
            return
        batches = self.items(arrays, seen, c.train.batch_size)
        self._fit(folder, "vision", task, c.train, batches, self.config.seed)

    def knowledge(self, folder: Path) -> None:
        """Stage "knowledge": the Knowledge tower, on the training items."""
        c = self.config.knowledge
        learned = (self.workdir / "vision" / "params").is_dir()
        eye = self.params("vision", self.eye)["vision"] if learned else None
        task = self.knowledge_task(eye)
        rows = np.flatnonzero(self.train_items)
        batches = self.items(self.arrays, rows, c.train.batch_size)
        self._fit(folder, "knowledge", task, c.train, batches, self.config.seed)

    def read(self, folder: Path) -> None:
        """Stage "read": the Knowledge tower's e of the whole catalogue, in each view."""
        arrays = {
            name: self.encode(view(self.arrays, name, self.config.seed), name) for name in VIEWS
        }
        self._refuse_blindness(arrays)
        known = Standardiser.fit(arrays["both"], np.flatnonzero(self.train_items))
        alone = {
            name: Standardiser.fit(arrays[name], np.flatnonzero(self.train_items))
            for name in ("text", "picture")
        }
        # A control shows the student other pictures through the very same features.
        out = {name: alone.get(name, known)(array) for name, array in arrays.items()}
        out |= {"mean": known.mean[None], "scale": known.scale[None]}
        write_tables(folder, self.dataset.items.ids, out, self.provenance)

    def _refuse_blindness(self, e: Mapping[str, np.ndarray]) -> None:
        """Raise UserError where other pictures, or other texts, give every item the same e."""
        for part, array in (("pictures", "picture"), ("texts", "text")):
            shown = view(self.arrays, f"{part} permuted", self.config.seed)[array]
            moved = not np.array_equal(shown, self.arrays[array])
            if moved and np.array_equal(e["both"], e[f"{part} permuted"]):
                raise UserError(
                    f"the Knowledge tower does not see {part}: permuting them across items changes "
                    "nothing that it says of any; train it longer, or look at its settings."
                )

    def transition(self, folder: Path) -> None:
        """Stage "transition": the Transfer tower, on sessions of cached features."""
        c = self.config.transition
        task = TransitionTask(
            self.transfer_config,
            self.e["both"],
            self.train_items,
            {**c.hparams, "learning_rate": c.train.learning_rate},
            self.tokens,
            self.words,
        )
        tower = Tower(task.model)
        features = {"e": self.e["both"], "tokens": self.tokens}
        self._fit(
            folder, "transition", task, c.train, self.sessions(c.train.batch_size),
            self.config.seed, self._validate(tower, features),
        )  # fmt: skip

    def distill(self, folder: Path) -> None:
        """Stage "distill": heads k and t on e, aligned with the Transfer tower."""
        c = self.config.distill
        model, params, _, tokens = self.teacher()
        task = DistillTask(
            self.alignment_config, model, params, self.e["both"], self.train_items,
            lower=c.lower, upper=c.upper, schedules=c.schedules,
            hparams={**c.hparams, "learning_rate": c.train.learning_rate}, tokens=tokens,
        )  # fmt: skip
        batches = self.sessions(c.train.batch_size)
        self._fit(folder, "distill", task, c.train, batches, self.config.seed)

    def embed(self, folder: Path) -> None:
        """Stage "embed": k and t of the whole catalogue, in each view, with provenance."""
        out: dict[str, np.ndarray] = {}
        for name in VIEWS:
            k, t = self.heads(self.e[name])
            out |= {f"{name}/k": k, f"{name}/t": t}
        known = np.flatnonzero(self.train_items)
        fitted = {name: Standardiser.fit(out[f"both/{name}"], known) for name in ("k", "t")}
        for name in out:
            source, head = name.split("/")
            alone = source in ("text", "picture")
            scaler = Standardiser.fit(out[name], known) if alone else fitted[head]
            out[name] = scaler(out[name])
        for head, scaler in fitted.items():
            out |= {f"{head}/mean": scaler.mean[None], f"{head}/scale": scaler.scale[None]}
        write_tables(folder, self.dataset.items.ids, out)

    def teach(self, folder: Path) -> None:
        """Stage "teach": what the blend of rules says of each training session, out of fold."""
        c = self.config.teach
        validation = ask(self.dataset, "validation")
        with self.tracker.stage("teach").progress(c.folds, "teach") as bar:
            lessons, temperatures = out_of_fold(
                self.dataset, validation,
                blend_of(validation, {"Knowledge tower": self.e["both"]}),
                folds=c.folds, top=self.config.student.top, seed=self.config.seed,
                window=self.config.data.window, progress=lambda _: bar.update(1),
            )  # fmt: skip
        facts = {
            "stage": "teach", "teacher": "blend of rules", "folds": str(c.folds),
            "temperatures": ", ".join(f"{each:.4g}" for each in temperatures),
        }  # fmt: skip
        write_features(folder / LESSONS, vars(lessons), self._event_names, facts)

    @property
    def _event_names(self) -> list[str]:
        """What identifies the rows of lessons: each training event's session and item."""
        train, ids = self.dataset.splits["train"], self.dataset.items.ids
        owner = np.repeat(np.arange(len(train)), train.lengths)
        return [f"{train.ids[s]} {ids[i]}" for s, i in zip(owner, train.items)]

    def _taught_by_rules(self, name: str) -> bool:
        variant = self.config.students[name]
        return variant.logit > 0 and variant.get("teacher", "transfer") == "rules"

    def _teacher_of(self, name: str) -> Teacher | CachedTeacher:
        """Return whom a student follows."""
        if not self._taught_by_rules(name):
            return Teacher(*self.teacher())
        path = self.workdir / "teach" / LESSONS
        return CachedTeacher(**read_features(path, self._event_names).arrays)

    def _student(self, name: str, seed: int) -> Callable[[Path], None]:
        """Return the stage that trains one student with one seed."""

        def run(folder: Path) -> None:
            trainer, tower = self.student_trainer(name)
            features = self.student_features(name)
            evaluate = self._validate(tower, features)
            train = self._student_settings(name, "train")
            batches = self.sessions(train.batch_size, seed, self._taught_by_rules(name))
            label = f"students/{name}-{seed}"
            self._fit(folder, label, trainer, train, batches, seed, evaluate)

        return run

    def vision_task(self, words: tuple[Any, Any]) -> VisionTask:
        """Return what stage "vision" trains, given the words' weights and priors."""
        c = self.config.vision
        hparams = {**c.hparams, "learning_rate": c.train.learning_rate}
        return VisionTask(self.eye, words, hparams)

    def knowledge_task(self, eye: Params | None) -> KnowledgeTask:
        """Return what stage "knowledge" trains; ``eye`` is an encoder that has learned before."""
        c = self.config.knowledge
        hparams = {**c.hparams, "learning_rate": c.train.learning_rate}
        return KnowledgeTask(self.knowledge_config, hparams, vision=eye)

    # ---- students -----------------------------------------------------------------------------

    def student_features(self, name: str, shown: str | None = None) -> dict[str, np.ndarray]:
        """Return {"features": [V, F]} of a student, or {} where it has none.

        Args:
          name: The student.
          shown: Another view than the student's own, for the controls.
        """
        variant = self.config.students[name]
        shown = shown or variant.view
        if variant.features == "none":
            return {}
        if variant.features == "e":
            return {"features": self.e[shown]}
        parts = [self.heads_table[f"{shown}/{head}"] for head in variant.features.split("+")]
        return {"features": np.concatenate(parts, 1)}

    def _student_settings(self, name: str, kind: str) -> ConfigDict:
        """Return "train" or "hparams" of all students, with what this one changes."""
        own = self.config.students[name].get(kind, {})
        return ConfigDict({**self.config.student[kind], **own})

    def student_trainer(self, name: str) -> tuple[Trainer, Tower]:
        """Return the trainer and jitted tower of a student, shared by its seeds."""
        if name not in self._trainers:
            c, variant = self.config.student, self.config.students[name]
            features = self.student_features(name).get("features")
            ids = id_table_size(self.train_items) if variant.ids else 0
            config = StudentConfig(
                features=0 if features is None else features.shape[1],
                ids=ids,
                stack=StackConfig(**c.stack),
                **self.context,
            )
            teacher = self._teacher_of(name) if variant.logit > 0 else None
            train, hparams = (self._student_settings(name, kind) for kind in ("train", "hparams"))
            numbers = {"learning_rate": train.learning_rate, "logit": variant.logit}
            task = StudentTask(
                config, features, self.train_items, teacher, {**hparams, **numbers},
                variant.get("distill", c.distill), c.top, c.schedules,
            )  # fmt: skip
            trainer = self._trainer(task, train)
            tower = Tower(task.model, id_rows(self.train_items, max(ids, 1)))
            self._trainers[name] = (trainer, tower)
        return self._trainers[name]

    def student_ranker(self, name: str, seed: int, shown: str | None = None) -> TowerRanker:
        """Return a trained student as a Ranker, prepared with a view of the catalogue."""
        _, tower = self.student_trainer(name)
        params = self.params(f"students/{name}-{seed}", tower.model)
        ranker = tower.ranker(name, params)
        ranker.prepare(self.student_features(name, shown))
        return ranker

    def session_buckets(self, batch_size: int) -> tuple[tuple[int, int], ...]:
        """Return (length, batch size) of short and of long sessions."""
        longest = self.config.data.window
        short = max(longest // 4, 5)
        if short >= longest:
            return ((longest, batch_size),)
        # As many positions in a batch of short sessions as in a batch of long ones.
        wide = batch_size * longest // short
        # A batch that a pod can share is shared whichever its sessions are.
        unit = batch_size if batch_size >= 256 else 8
        return (short, wide - wide % unit), (longest, batch_size)

    def sessions(self, batch_size: int, seed: int | None = None, places: bool = False) -> Any:
        """Return training batches of sessions, short and long ones apart, this process's share."""
        return session_batches(
            self.dataset.splits["train"],
            buckets=self.session_buckets(batch_size),
            seed=self.config.seed if seed is None else seed,
            read=process_rows(make_mesh(self.config.rules)),
            places=places,
        )

    def items(self, arrays: Mapping[str, np.ndarray], rows: np.ndarray, batch_size: int) -> Any:
        """Return training batches of items, this process's share."""
        read = process_rows(make_mesh(self.config.rules))
        return item_batches(arrays, rows, batch_size=batch_size, seed=self.config.seed, read=read)

    # ---- helpers --------------------------------------------------------------------------

    def _trainer(self, task: Task, train: ConfigDict) -> Trainer:
        settings = train_config(train, self.config.rules)
        return Trainer(task, settings, frozen=task.frozen(self.workdir))

    def _fit(
        self,
        folder: Path,
        name: str,
        task: Task | Trainer,
        train: ConfigDict,
        batches: Any,
        seed: int,
        evaluate: Any = None,
    ) -> FitResult:
        trainer = task if isinstance(task, Trainer) else self._trainer(task, train)
        metadata = {
            "stage": name,
            "fingerprint": self.dataset.fingerprint,
            "config": flatten(train),
        }
        return fit(
            trainer, folder, batches, seed=seed, evaluate=evaluate,
            tracker=self.tracker.stage(name), metadata=metadata,
        )  # fmt: skip

    def _validate(
        self, tower: Tower, features: Mapping[str, Any]
    ) -> Callable[[Params, Any], dict[str, float]]:
        """Return the evaluation during training: the primary figure on validation."""
        predictions = ask(self.dataset, "validation")
        predictions = predictions.take(np.flatnonzero(predictions.position <= 20))

        def evaluate(params: Params, task_state: Any) -> dict[str, float]:
            ranker = tower.ranker("validation", params)
            ranker.prepare(features)
            ranked = rank(
                ranker, predictions, n_items=len(self.dataset.items),
                exclude_seen=self.dataset.exclude_seen, top=0,
            )  # fmt: skip
            found = figures(ranked.ranks[0], predictions)[SESSION]
            return {"score": found[MRR20] or 0.0, HR20: found[HR20] or 0.0}

        return evaluate
