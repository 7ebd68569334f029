"""What the stages of TPAD leave in a workdir, read back: data, features, towers.

Everything is read once, when it is first asked for.
"""

import json
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jmrec.checkpoint import load_params
from jmrec.config import ConfigDict
from jmrec.data.prepared import load_prepared
from jmrec.data.schema import Dataset
from jmrec.evaluation.neural import CompiledEncoder, NeuralRanker
from jmrec.features import read_features
from jmrec.models.alignment import AlignmentConfig, alignment
from jmrec.models.build import check_fit
from jmrec.models.knowledge import KnowledgeConfig, knowledge_tower
from jmrec.models.layers import StackConfig
from jmrec.models.sessions.table import session_model
from jmrec.models.sessions.transfer import ItemTokens, TransferConfig
from jmrec.models.vision import VisionConfig, picture_words
from jmrec.sharding import batch_sharding, make_mesh, replicated
from jmrec.systems.catalogue import BLOCK, Reader
from jmrec.systems.tables import TABLES, read_tables
from jmrec.tracking import Tracker
from jmrec.types import Model, Params


class Towers:
    """The towers of one workdir and what they read.

    Args:
      config: From experiments/tpad.py.
      workdir: The run's folder.
      tracker: Metrics and messages.
    """

    read_batch = 256

    def __init__(self, config: ConfigDict, workdir: Path, tracker: Tracker) -> None:
        self.config, self.workdir, self.tracker = config, workdir, tracker

    @cached_property
    def dataset(self) -> Dataset:
        """The prepared data set."""
        return load_prepared(self.workdir / "data" / "prepared")

    @cached_property
    def train_items(self) -> np.ndarray:
        """Bool [V], items that occur in training."""
        return self.dataset.train_count > 0

    @cached_property
    def reader(self) -> Reader:
        """How items are read."""
        return Reader.load(self.workdir / "data")

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """Tokens and pixels of the catalogue."""
        return self.reader.read(self.dataset.items)

    @cached_property
    def e(self) -> dict[str, np.ndarray]:
        """View -> standardised features e of the whole catalogue, float32 [V, D]."""
        return read_tables(self.workdir / "read", self.dataset.items.ids)

    @cached_property
    def heads_table(self) -> dict[str, np.ndarray]:
        """Return "VIEW/k" and "VIEW/t" -> standardised heads of the whole catalogue."""
        return read_tables(self.workdir / "embed", self.dataset.items.ids)

    @cached_property
    def knowledge_config(self) -> KnowledgeConfig:
        """The Knowledge tower's size, with the vocabulary and fields of this run."""
        c = self.config.knowledge
        vision = VisionConfig(
            size=self.config.data.picture_size,
            patch=c.vision.patch,
            merge=c.vision.merge,
            stack=StackConfig(**c.vision.stack),
        )
        fields = tuple(self.reader.lengths.values())
        return KnowledgeConfig(
            vocab=self.reader.vocab,
            fields=fields,
            vision=vision,
            stack=StackConfig(**c.stack),
            soft=c.soft,
        )

    @cached_property
    def context(self) -> dict[str, Any]:
        """What of a session's context is read, as the configs of towers and students say it."""
        c, train = self.config.context, self.dataset.splits["train"]
        types = int(train.events.max(initial=0)) + 1
        return {
            "gaps": bool(c.gap and self.dataset.has_time),
            "events": types if c.event and types > 1 else 0,
        }

    @property
    def provenance(self) -> dict[str, str]:
        """Which pretrained weights the features come from; {} where there are none."""
        return {}

    @property
    def reader_parameters(self) -> int:
        """How many numbers the Knowledge tower has, pretrained ones included."""
        own = jax.tree.leaves(self.params("knowledge", self.reader_tower))
        told = read_features(self.workdir / "read" / TABLES).provenance
        parts = [json.loads(told[name]) for name in ("text", "picture") if name in told]
        # A whole multimodal model brings both parts at once.
        pretrained = {part["source"]: part.get("parameters", 0) for part in parts}
        return sum(leaf.size for leaf in own) + sum(pretrained.values())

    @property
    def features_width(self) -> int:
        """Width of e."""
        return self.knowledge_config.features

    @property
    def reader_tower(self) -> Model:
        """The Knowledge tower."""
        return knowledge_tower(self.knowledge_config)

    @property
    def eye(self) -> Model:
        """The Knowledge tower's vision encoder with a head that names words."""
        c = self.knowledge_config
        return picture_words(c.vision, c.stack.width, c.vocab)

    @property
    def transfer_config(self) -> TransferConfig:
        """The Transfer tower's size."""
        c = self.config.transition
        tokens = None
        if c.prompt == "tokens":
            known = self.knowledge_config
            tokens = ItemTokens(known.vocab, known.tokens, known.vision.tokens, known.stack.width)
        return TransferConfig(
            features=self.features_width, stack=StackConfig(**c.stack), out=c.out, tokens=tokens,
            **self.context,
        )  # fmt: skip

    @cached_property
    def tokens(self) -> dict[str, np.ndarray] | None:
        """What the Transfer tower reads of the items where that is all their tokens, else None."""
        if self.config.transition.prompt == "items":
            return None
        model = self.reader_tower
        params = self.params("knowledge", model)
        see = jax.jit(lambda text, picture, ok: model.fns["see"](params, picture)[0])
        seen = self._read_all(see, self.arrays, "read picture tokens")
        return {"text": self.arrays["text"], "seen": seen, "picture_ok": self.arrays["picture_ok"]}

    @property
    def words(self) -> Any:
        """The Knowledge tower's token vectors where the Transfer tower can begin with them."""
        c = self.config
        if c.transition.prompt == "items" or c.transition.stack.width != c.knowledge.stack.width:
            return None
        return self.params("knowledge", self.reader_tower)["embed"]

    @property
    def alignment_config(self) -> AlignmentConfig:
        """The sizes of heads and critics."""
        c = self.config.distill
        return AlignmentConfig(
            features=self.features_width,
            states=self.config.transition.out,
            k=c.k,
            t=c.t,
            critic=c.critic,
        )

    def params(self, stage: str, model: Model) -> Params:
        """Return the parameters of a finished stage, numpy arrays.

        Raises:
          UserError: They are not the model's: another version of jmrec made them.
        """
        params, _ = load_params(self.workdir / stage / "params")
        check_fit(params, jax.eval_shape(model.init, jax.random.key(0)), str(self.workdir / stage))
        return params

    def encode(self, arrays: Mapping[str, np.ndarray], name: str = "") -> np.ndarray:
        """Read items with the Knowledge tower: float32 [V, D], not standardised."""
        run = partial(self._encode_items, self.reader_params)
        return self._read_all(run, arrays, f"read {name}".strip())

    @cached_property
    def reader_params(self) -> Params:
        """All that the Knowledge tower's functions want of parameters, on the devices."""
        return self._whole(self.params("knowledge", self.reader_tower))

    def _whole(self, tree: Any) -> Any:
        return jax.device_put(tree, replicated(make_mesh("dp", jax.local_devices())))

    @cached_property
    def _encode_items(self) -> Callable[..., jax.Array]:
        model = self.reader_tower

        @jax.jit
        def encode(params: Params, text: jax.Array, picture: jax.Array, ok: jax.Array) -> jax.Array:
            seen, _ = model.fns["see"](params, picture)
            return model.fns["encode_item"](params, text, seen, text > 0, ok)[0]

        return encode

    def _read_all(
        self,
        read: Callable[..., jax.Array],
        arrays: Mapping[str, np.ndarray],
        label: str,
        keep: Callable[[int, Callable[[], np.ndarray]], np.ndarray] = lambda start, work: work(),
    ) -> np.ndarray:
        """Return ``read(text, picture, picture_ok)`` of all items.

        Args:
          read: Reads a batch, which is shared out over this process's devices.
          arrays: Of all items.
          label: For the progress bar.
          keep: ``(start, work) -> block`` that may have what ``work`` would read of the block of
            items from ``start`` on.
        """
        count, size, parts = len(arrays["text"]), self.read_block, []
        with self.tracker.stage("read").progress(count, label) as bar:
            for start in range(0, count, size):
                block = {name: array[start : start + size] for name, array in arrays.items()}
                parts.append(keep(start, partial(self._read_block, read, block)))
                bar.update(len(parts[-1]))
        return np.concatenate(parts)

    @property
    def _read_size(self) -> int:
        """Items that are read at once: so many that they divide over this process's devices."""
        devices = len(jax.local_devices())
        return -(-self.read_batch // devices) * devices

    @property
    def read_block(self) -> int:
        """Items of a block: about `BLOCK`, and whole batches."""
        return -(-BLOCK // self._read_size) * self._read_size

    def _read_block(
        self, read: Callable[..., jax.Array], arrays: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        spread = batch_sharding(make_mesh("dp", jax.local_devices()))
        count, size, parts = len(arrays["text"]), self._read_size, []
        for start in range(0, count, size):
            rows = np.arange(start, min(start + size, count))
            # The last batch repeats its last item, so that one shape is compiled.
            rows = np.pad(rows, (0, size - len(rows)), mode="edge")
            few = [arrays[key][rows] for key in ("text", "picture", "picture_ok")]
            parts.append(np.asarray(read(*jax.device_put(few, spread))))
        return np.concatenate(parts)[:count]

    def heads(self, e: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return k and t of standardised e [V, D]."""
        model = alignment(self.alignment_config)
        params = self.params("distill", model)
        (k, t), _ = jax.jit(model.fns["heads"])(params, e)
        return np.asarray(k), np.asarray(t)

    def teacher(self) -> tuple[Model, Params, np.ndarray, dict[str, np.ndarray] | None]:
        """Return the Transfer tower, its parameters, the features e and the tokens it reads."""
        model = session_model(self.transfer_config)
        return model, self.params("transition", model), self.e["both"], self.tokens

    def teacher_ranker(self) -> NeuralRanker:
        """Return the Transfer tower as a Ranker, prepared."""
        model, params, e, tokens = self.teacher()
        ranker = CompiledEncoder(model).ranker("Transfer tower (teacher)", params)
        ranker.prepare({"features": e, "tokens": tokens})
        return ranker
