"""The tokenizer and the token arrays."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from jmrec.data.schema import Items
from jmrec.data.text import (
    EOS,
    FIELD,
    MIN_VOCABULARY,
    PAD,
    SPECIALS,
    decode_tokens,
    encode_fields,
    item_texts,
    load_tokenizer,
    save_tokenizer,
    train_tokenizer,
)
from jmrec.errors import UserError

CORPUS = ["red shoe with a stripe", "blue shoe", "red hat", "striped hat, blue"] * 5


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(CORPUS, 320)


def _items(title: list[str], **text: list[str]) -> Items:
    n = len(title)
    ids = [str(i) for i in range(n)]
    return Items(ids, title, {"title": title, **text}, [b""] * n)


def test_special_tokens_and_size(tokenizer: Tokenizer) -> None:
    assert [tokenizer.token_to_id(t) for t in SPECIALS] == list(range(len(SPECIALS)))
    assert (PAD, EOS, FIELD) == (0, 2, 6)
    assert MIN_VOCABULARY < tokenizer.get_vocab_size() <= 320
    with pytest.raises(UserError, match="too small"):
        train_tokenizer(CORPUS, MIN_VOCABULARY - 1)


def test_same_texts_same_tokenizer(tokenizer: Tokenizer) -> None:
    assert train_tokenizer(iter(CORPUS), 320).to_str() == tokenizer.to_str()


def test_it_knows_only_what_it_was_given(tokenizer: Tokenizer) -> None:
    assert "Ġshoe" in tokenizer.get_vocab()
    assert "Ġshoe" not in train_tokenizer([t for t in CORPUS if "shoe" not in t], 320).get_vocab()


@settings(max_examples=100, deadline=None)
@given(text=st.text(st.characters(codec="utf-8"), max_size=30))
def test_any_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    tokens = encode_fields(tokenizer, _items([text]), {"title": 200})[0, 0]
    if text:
        assert tokens[0] == FIELD
        ends = np.flatnonzero(tokens == EOS)
        assert len(ends) == 1  # and nothing that the text says is a special token
        assert not tokens[ends[0] + 1 :].any()
        assert (tokens[1 : ends[0]] >= len(SPECIALS)).all()
    assert decode_tokens(tokenizer, tokens) == unicodedata.normalize("NFC", text).strip()


def test_fields_lengths_and_missing(tokenizer: Tokenizer) -> None:
    items = _items(["red shoe", ""], color=["red", "blue hat [EOS] [PAD] [FIELD 3]"])
    tokens = encode_fields(tokenizer, items, {"color": 6, "title": 9})
    assert tokens.shape == (2, 2, 9)
    assert tokens.dtype == np.int32
    red, shoe = tokenizer.token_to_id("Ġred"), tokenizer.token_to_id("Ġshoe")
    assert tokens[0, 0].tolist() == [FIELD, red, EOS, 0, 0, 0, 0, 0, 0]
    assert tokens[0, 1].tolist() == [FIELD + 1, red, shoe, EOS, 0, 0, 0, 0, 0]
    assert tokens[1, 0, 0] == FIELD  # cut to its own length of 6, the end kept
    assert tokens[1, 0, 5:].tolist() == [EOS, 0, 0, 0]
    assert (tokens[1, 0, 1:5] >= len(SPECIALS)).all()
    assert not tokens[1, 1].any()


@pytest.mark.parametrize("lengths", [{}, {"title": 2}, {"name": 5}])
def test_wrong_fields(tokenizer: Tokenizer, lengths: dict[str, int]) -> None:
    with pytest.raises(UserError):
        encode_fields(tokenizer, _items(["a"]), lengths)


def test_fields_in_a_pretrained_models_own_words() -> None:
    """Named, cut, without special tokens; and where token 0 is a word, it can not be told apart."""
    words = {"!": 0, "title": 1, ":": 2, "hi": 3, "[": 4, "END": 5, "]": 6, "[END]": 7, "?": 8}
    own = Tokenizer(models.WordLevel(words, unk_token="?"))
    own.pre_tokenizer = pre_tokenizers.Whitespace()
    own.add_special_tokens(["[END]"])
    own.post_processor = processors.TemplateProcessing("$A [END]", special_tokens=[("[END]", 7)])
    items = _items(["hi! hi", "hi [END] hi", "", "hi hi hi hi hi"])
    tokens = encode_fields(own, items, {"title": 7}, named=True)[:, 0]
    assert tokens.tolist() == [
        [1, 2, 3, 3, 0, 0, 0], [1, 2, 3, 4, 5, 6, 3], [0] * 7, [1, 2, 3, 3, 3, 3, 3],
    ]  # fmt: skip
    assert own.encode("hi").ids == [3, 7]


def test_item_texts() -> None:
    items = _items(["a", "b", "c"], color=["x", "", "z"])
    assert item_texts(items, [2, 1], ["title", "color"]) == ["c", "z", "b"]


def test_save_and_load(tokenizer: Tokenizer, tmp_path: Path) -> None:
    provenance = {"fields": {"title": 9}, "items": 4}
    save_tokenizer(tmp_path, tokenizer, provenance)
    loaded, read = load_tokenizer(tmp_path)
    assert loaded.to_str() == tokenizer.to_str()
    assert read == provenance
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="no whole tokenizer"):
        load_tokenizer(tmp_path)
    with pytest.raises(UserError, match="no whole tokenizer"):
        load_tokenizer(tmp_path / "none")
