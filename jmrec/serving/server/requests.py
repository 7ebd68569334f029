"""What may be asked over HTTP: one JSON schema a question, and its answer.

A question for a session is ``{"session": ["12", "57"], "top": 10}``, for several ``{"sessions":
[["12"], ["3"]]}``; of an artefact of pairs it is ``{"user": "eve"}`` or ``{"users": ["eve", 7]}``.
"""

import json
from collections.abc import Mapping
from typing import Any

from jsonschema import Draft202012Validator

from jmrec.errors import UserError
from jmrec.files import plain
from jmrec.serving.questions import REFUSE, SKIP, shown
from jmrec.serving.served import Answer, Served
from jmrec.serving.served_pairs import ServedPairs

LENGTH, BATCH, TOP = 1000, 256, 1000
"""The most items in a session, sessions or users in a request, and items in an answer."""
ITEMS = 100_000
"""The most items that one request may ask for, over all of its answers."""

_ID = {"type": ["string", "integer"], "maxLength": 1000}
_TIME = {"type": ["string", "number"], "maxLength": 100}
_SESSION = {"type": "array", "items": _ID, "minItems": 1, "maxItems": LENGTH}
_TIMES = {"type": "array", "items": _TIME, "maxItems": LENGTH}
_EVENTS = {"type": "array", "items": {"type": "string", "maxLength": 1000}, "maxItems": LENGTH}
_COMMON = {
    "top": {"type": "integer", "minimum": 1, "maximum": TOP, "default": 10},
    "at": {**_TIME, "description": "unix seconds or a date; now where it is left out"},
    "unknown": {"enum": [SKIP, REFUSE], "default": SKIP},
}


def _several(one: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": one, "minItems": 1, "maxItems": BATCH}


def _question(name: str, asked: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: asked, **more, **_COMMON},
        "required": [name],
        "additionalProperties": False,
    }


QUESTIONS: dict[str, dict[str, Any]] = {
    "session": _question("session", _SESSION, {"times": _TIMES, "events": _EVENTS}),
    "sessions": _question(
        "sessions", _several(_SESSION), {"times": _several(_TIMES), "events": _several(_EVENTS)}
    ),
    "user": _question("user", _ID, {}),
    "users": _question("users", _several(_ID), {}),
}
"""What a question is named by -> its JSON schema."""
_CHECKS = {name: Draft202012Validator(schema) for name, schema in QUESTIONS.items()}


class Unreadable(UserError):
    """A body that is no JSON: 400, where a question that makes no sense is 422."""


def kinds(served: Served | ServedPairs) -> tuple[str, str]:
    """Return the names of the questions that an artefact answers: for one, and for several."""
    return ("session", "sessions") if isinstance(served, Served) else ("user", "users")


def schema(served: Served | ServedPairs) -> dict[str, Any]:
    """Return the JSON schema of all that may be asked of an artefact."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What POST /recommend takes",
        "oneOf": [QUESTIONS[name] for name in kinds(served)],
    }


def read_body(body: bytes) -> Any:
    """Return what a body holds.

    Raises:
      Unreadable: It is no JSON.

    Example:
      >>> read_body(b'{"session": ["12"]}')
      {'session': ['12']}
    """
    try:
        return json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise Unreadable("the body is not in UTF-8; send JSON in UTF-8.") from None
    except RecursionError:
        raise Unreadable("the body is nested too deep; send a flat question.") from None
    except json.JSONDecodeError as error:
        raise Unreadable(
            f"the body is no JSON ({error.msg}, line {error.lineno}, column {error.colno}); "
            'send {"session": ["12", "57"]}.'
        ) from None
    except ValueError:  # a number of thousands of digits, NaN
        raise Unreadable("the body holds a number that JSON has not; mend that.") from None


def _no_constant(word: str) -> Any:
    raise ValueError(word)


def answer(served: Served | ServedPairs, body: bytes) -> tuple[bytes, int]:
    """Return the answer to a question.

    Args:
      served: What answers.
      body: JSON, see the module's docstring.

    Returns:
      JSON, and for how many sessions or users.

    Raises:
      Unreadable: The body is no JSON.
      UserError: It asks nothing that the artefact can answer.
    """
    asked = read_body(body)
    one, many = kinds(served)
    if not isinstance(asked, dict) or not {one, many} & set(asked):
        raise UserError(f'name what is asked for: {{"{one}": ...}} or {{"{many}": ...}}.')
    name = one if one in asked else many
    _check(name, asked)
    asks = [asked.pop(one)] if name == one else asked.pop(many)
    if len(asks) * asked.get("top", 10) > ITEMS:
        raise UserError(
            f"{len(asks)} answers of {asked['top']} items are more than {ITEMS:,} items; ask for "
            "fewer at a time."
        )
    if name == one:
        answered = _told(served.recommend(asks[0], **asked))
    else:
        answered = {"answers": [_told(each) for each in served.recommend_batch(asks, **asked)]}
    return json.dumps(plain(answered), allow_nan=False).encode(), len(asks)


def _told(found: Any) -> dict[str, Any]:
    """Return an answer as JSON says it."""
    return {"items": list(found), "unknown": found.unknown} if isinstance(found, Answer) else found


def _check(name: str, asked: Mapping[str, Any]) -> None:
    for error in _CHECKS[name].iter_errors(asked):
        where = "".join(f"[{at}]" if isinstance(at, int) else str(at) for at in error.absolute_path)
        if error.validator == "additionalProperties":
            known = ", ".join(QUESTIONS[name]["properties"])
            strange = next(each for each in asked if each not in QUESTIONS[name]["properties"])
            raise UserError(f"{shown(strange)} is unknown beside {name}; there are {known}.")
        rule = f"{error.validator} {json.dumps(error.validator_value)[:60]}"
        raise UserError(f"{where} is {shown(error.instance)}, which is not of {rule}; see /schema.")
