"""GGUF files, dequantised to float32."""

import os
import sys
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from jmrec.convert.sources import REMEDY, check_weights, first_line, map_bytes
from jmrec.errors import UserError

MAX_STEPS, MAX_TEXTS = 100_000, 2_000_000
"""Reads of the head, of 20 microseconds each, and texts in its lists: several times what the
largest models have."""


class Gguf:
    """A GGUF file through the package ``gguf``; quantised tensors come as float32.

    Shapes are row-major, as torch has them (the file has them the other way round). The rows of
    llama's query and key matrices are in the order of interleaved rotary positions:
    `jmrec.convert.table.halves` undoes that.

    Raises:
      UserError: It is missing, cut off or no GGUF file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.files = (self.path,)
        head = map_bytes(self.path)[:100].tobytes()
        check_weights(self.path, head)
        if not head.startswith(b"GGUF"):
            raise UserError(f"{self.path} is no GGUF file; {REMEDY}.")
        reader_class = _bounded_reader()
        try:
            self._reader = reader_class(self.path)
        except Exception as error:  # whatever broken bytes lead to
            why = first_line(error)
            raise UserError(f"{self.path} is no whole GGUF file ({why}); {REMEDY}.") from None
        for tensor in self._reader.tensors:
            if not all(tensor.shape):
                raise UserError(f"{self.path}: tensor {tensor.name!r} has no numbers; {REMEDY}.")
        self._tensors = {tensor.name: tensor for tensor in self._reader.tensors}

    @cached_property
    def metadata(self) -> Mapping[str, Any]:
        """Every key of the file with its value: text, number or list."""
        try:
            return {
                key: field.contents()
                for key, field in self._reader.fields.items()
                if not key.startswith("GGUF.")
            }
        except Exception as error:  # text that is no UTF-8, types that do not exist
            why = first_line(error)
            raise UserError(f"{self.path}: its metadata are broken ({why}); {REMEDY}.") from None

    def names(self) -> list[str]:
        """Return the names of all tensors, sorted."""
        return sorted(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape, row-major."""
        return tuple(int(size) for size in reversed(self._tensors[name].shape))

    def read(self, name: str, index: Any = ...) -> np.ndarray:
        """Return a tensor or a part of it; of a quantised one, only those rows are dequantised."""
        from gguf.constants import GGML_QUANT_SIZES
        from gguf.quants import dequantize

        tensor = self._tensors[name]
        if GGML_QUANT_SIZES[tensor.tensor_type][0] == 1 and tensor.data.dtype != np.uint8:
            return tensor.data[index]
        raw, rest = tensor.data, index
        # Blocks lie along the last axis; a slice of the first is cut before they are read.
        if isinstance(index, tuple) and index and isinstance(index[0], slice) and raw.ndim > 1:
            raw, rest = raw[index[0]], (slice(None), *index[1:])
        try:
            whole = dequantize(raw, tensor.tensor_type)
        except NotImplementedError:
            raise UserError(
                f"{self.path}: tensor {name!r} is of the type {tensor.tensor_type.name}, which "
                "the package gguf cannot read; use a file of another quantisation."
            ) from None
        except ValueError as error:  # blocks of no numbers, or not whole
            why = first_line(error)
            raise UserError(f"{self.path}: tensor {name!r} is broken ({why}); {REMEDY}.") from None
        return whole[rest]


def _bounded_reader() -> Any:
    """Return gguf's reader, changed so that it never reads past the end of the file.

    As it is, a length of 2^60 in a broken file keeps it busy with nothing for ever, and so does
    one of 2^30 in a large one: it reads lists number by number. Here they are read at once.
    """
    try:
        from gguf import GGUFReader, GGUFValueType
    except ImportError:
        raise UserError(
            "reading a GGUF file needs the package gguf; install it with pip install gguf."
        ) from None

    class Bounded(GGUFReader):
        steps = texts = 0

        def _get(self, offset: int, dtype: Any, count: Any = 1, override_order: Any = None) -> Any:
            self.steps += 1
            if self.steps > MAX_STEPS:
                raise ValueError("its metadata are longer than those of any model")
            size = np.dtype(dtype).itemsize * int(count)
            if int(offset) + size > len(self.data):
                raise ValueError("it is cut off")
            return super()._get(int(offset), dtype, count, override_order)

        def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:
            if raw_type != GGUFValueType.ARRAY:
                return super()._get_field_parts(orig_offs, raw_type)
            kind, count = self._get(orig_offs, np.uint32), self._get(orig_offs + 4, np.uint64)
            inner, number, begin = GGUFValueType(kind[0]), int(count[0]), orig_offs + 12
            types = [GGUFValueType.ARRAY, inner] if number else [GGUFValueType.ARRAY]
            if inner in self.gguf_scalar_to_np:
                values = [self._get(begin, self.gguf_scalar_to_np[inner], number)]
                size = values[0].nbytes
            elif inner == GGUFValueType.STRING:
                values, size = self._texts(int(begin), number)
            else:
                return super()._get_field_parts(orig_offs, raw_type)
            return 12 + size, [kind, count, *values], [2 + i for i in range(len(values))], types

        def _texts(self, begin: int, number: int) -> tuple[list[np.ndarray], int]:
            self.texts += number
            if self.texts > MAX_TEXTS:
                raise ValueError("its metadata are longer than those of any model")
            raw, found, place = self.data.view(np.ndarray), [], begin
            order: Any = (
                "big" if (self.byte_order == "S") == (sys.byteorder == "little") else "little"
            )
            for _ in range(number):
                start = place + 8
                place = start + int.from_bytes(raw[place:start].tobytes(), order)
                if place > len(raw):
                    raise ValueError("it is cut off")
                found.append(raw[start:place])
            return found, place - begin

    return Bounded
