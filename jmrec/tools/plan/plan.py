"""``jmrec plan``: does an experiment fit hardware that is not here, and what would it cost there.

Every training step is compiled from shapes alone in a process of its own: for a TPU by libtpu (the
optional extra "tpu-plan"), for everything else by the CPU's compiler for as many pretended CPU
devices.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from jmrec.config import ConfigDict
from jmrec.data.toyshop import FIELDS as TOYSHOP_FIELDS
from jmrec.errors import UserError
from jmrec.terminal import say
from jmrec.tools.plan.verdict import Hardware, StagePlan, duration, judge
from jmrec.tools.terminal import human, wide_console

ITEMS, FIELDS = 10_000, 3
"""What is assumed of a catalogue that is not known."""


def plan(
    config: ConfigDict,
    hardware: Hardware,
    *,
    stages: Sequence[str] = (),
    items: int | None = None,
    vocab: int | None = None,
    fields: Sequence[int] | None = None,
    libtpu: bool = True,
    length: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Plan the training stages of an experiment.

    Args:
      config: From an experiment file.
      hardware: From `jmrec.tools.plan.verdict.parse_topology`.
      stages: Which; "student" is the one that the run would serve, ``students/NAME`` any; none
        are all, and of the students the one that is served (the last, where validation chooses).
      items: See `assumed_sizes`.
      vocab: See `assumed_sizes`.
      fields: See `assumed_sizes`.
      libtpu: Whether the TPU compiler may be used where it is installed.
      length: The named arguments of `jmrec.tools.plan.verdict.duration`: how long stages over
        sessions train; None does not ask.

    Returns:
      json-able: "topology", "devices", "memory", "rules", "compiler", "exact" (the compiler is the
      hardware's own), "assumed", "stages" (each a `StagePlan` with its "verdict"), "fits" (of all),
      "seconds", "peak_memory".

    Raises:
      UserError: The experiment cannot be planned, or the compiler broke down.
    """
    assumed = assumed_sizes(config, items, vocab, fields)
    tpu = hardware.is_tpu and libtpu and importlib.util.find_spec("libtpu") is not None
    if length is not None:
        assumed["interactions"] = length["interactions"]
    request = {
        "config": config.to_dict(),
        "tpu": hardware.name if tpu else "",
        "kind": hardware.name.split(":")[0],
        "stages": list(stages),
        **assumed,
    }
    start = time.monotonic()
    found, peak = _ask(request, environment(hardware.devices, tpu))
    rows = []
    for each in found:
        verdict = judge(each, hardware, hardware.exact(tpu), config)
        rows.append({**asdict(each), "verdict": asdict(verdict)})
        if length is not None and each.flops and each.positions:
            found_length = duration(each.flops, each.positions, hardware, **length)
            rows[-1]["duration"] = found_length and asdict(found_length)
    fits = [row["verdict"]["fits"] for row in rows]
    return {
        "topology": hardware.name,
        "devices": hardware.devices,
        "memory": hardware.memory,
        "rules": config.rules,
        "compiler": "tpu" if tpu else "cpu",
        "exact": hardware.exact(tpu),
        "assumed": assumed,
        "length": length,
        "stages": rows,
        "fits": False if False in fits else None if None in fits else True,
        "seconds": round(time.monotonic() - start, 1),
        "peak_memory": peak,
    }


def assumed_sizes(
    config: ConfigDict,
    items: int | None = None,
    vocab: int | None = None,
    fields: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Return the sizes that only data decides: "items", "vocab" and "fields".

    Args:
      config: From an experiment file.
      items: Items of the catalogue; None is ToyShop's number, else 10,000.
      vocab: Tokens of the tokenizer; None is the most that the configuration allows.
      fields: Tokens of each text field; None is as many fields as ToyShop has, else three, each of
        the greatest length allowed. Their number decides how wide an item's features are.

    Raises:
      UserError: One of them is not positive.

    Example:
      >>> from jmrec.config import load_config
      >>> assumed_sizes(load_config("tpad:size=tiny", []))
      {'items': 400, 'vocab': 1000, 'fields': [32, 32, 32, 32, 32]}
    """
    data = config.get("data", ConfigDict())  # some systems draw their own
    toyshop = data.get("source") == "toyshop"
    if items is None:
        items = data.toyshop.n_items if toyshop else ITEMS
    vocab = data.get("vocab", 1) if vocab is None else vocab
    number = len(TOYSHOP_FIELDS) + bool(data.get("facts")) if toyshop else FIELDS
    fields = list(fields or [data.get("max_tokens", 1)] * number)
    if min(items, vocab, *fields) < 1:
        raise UserError("--items, --vocab and --fields must be 1 or more.")
    return {"items": items, "vocab": vocab, "fields": fields}


def said_of_duration(found: Mapping[str, Any], length: Mapping[str, Any]) -> str:
    """Return how long a stage trains, in words.

    Example:
      >>> length = {"interactions": 1000, "epochs": 1.0, "use": 0.4, "price": 2.0}
      >>> said_of_duration({"updates": 10, "hours": 0.5, "cost": 8.0}, length)
      '10 updates read 1,000 interactions 1 x: 0.5 h by FLOPs alone at 40% of the peak, cost 8'
    """
    cost = "" if found["cost"] is None else f", cost {found['cost']:.3g}"
    return (
        f"{found['updates']:,} updates read {length['interactions']:,} interactions "
        f"{length['epochs']:g} x: {found['hours']:.3g} h by FLOPs alone at {length['use']:.0%} of "
        f"the peak{cost}"
    )


def read_length(
    interactions: int | None, epochs: float, use: float, price: float | None
) -> dict[str, Any] | None:
    """Return the arguments of `jmrec.tools.plan.verdict.duration`; None without interactions.

    Raises:
      UserError: One of them makes no sense.
    """
    if interactions is None:
        return None
    if interactions < 1 or not epochs > 0 or not 0 < use <= 1 or not (price is None or price >= 0):
        raise UserError(
            "--interactions must be 1 or more, --epochs above 0, --use above 0 and at most 1, and "
            "--price 0 or more."
        )
    return {"interactions": interactions, "epochs": epochs, "use": use, "price": price}


def read_fields(text: str | None) -> list[int] | None:
    """Read ``--fields``.

    Example:
      >>> read_fields("5,23,5")
      [5, 23, 5]
    """
    if text is None:
        return None
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise UserError(f"--fields {text!r} is not understood; write numbers like 16,32,16.")
    return [int(part) for part in text.split(",")]


def environment(devices: int, tpu: bool) -> dict[str, str]:
    """Return the environment in which the process sees those devices, whatever is here."""
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
    flag = "--xla_force_host_platform_device_count"
    flags = re.sub(rf"{flag}=\S*", "", env.get("XLA_FLAGS", ""))
    if tpu:
        from libtpu import get_library_path

        # No cloud's metadata server is contacted, and no TPU is searched.
        env |= {
            "TPU_SKIP_MDS_QUERY": "1",
            "TPU_ACCELERATOR_TYPE": "v5litepod-16",
            "TPU_WORKER_HOSTNAMES": "localhost",
            "TPU_LIBRARY_PATH": get_library_path(),
            "TPU_MIN_LOG_LEVEL": "3",
        }
    else:
        flags += f" {flag}={devices}"
    env["XLA_FLAGS"] = flags.strip()
    return env


def _ask(request: dict[str, Any], env: dict[str, str]) -> tuple[list[StagePlan], int]:
    """Run the planning process; return what it found and the most memory that it took."""
    found: list[StagePlan] = []
    peak, doing = 0, "the start"
    command = [sys.executable, "-P", "-m", "jmrec.tools.plan.worker"]
    with (
        tempfile.TemporaryFile("w+") as complaints,
        subprocess.Popen(
            command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints,
            text=True,
        ) as process,
    ):  # fmt: skip
        assert process.stdin
        assert process.stdout
        json.dump(request, process.stdin)
        process.stdin.close()
        for line in process.stdout:
            if not line.startswith("{"):
                continue  # libraries that print
            message = json.loads(line)
            if "progress" in message:
                doing = message["progress"].split(":")[0]
                say(message["progress"], sys.stderr)
            elif "stage" in message:
                found.append(StagePlan(**message["stage"]))
            elif "error" in message:
                raise UserError(message["error"])
            else:
                peak = message["peak"]
        process.wait()
        complaints.seek(0)
        trouble = complaints.read().strip()
    if process.returncode:
        last = trouble.splitlines()[-1][:300] if trouble else f"exit code {process.returncode}"
        hint = "--without-libtpu plans on the CPU" if request["tpu"] else "this is a bug of jmrec"
        if process.returncode < 0:
            last = f"ended by signal {-process.returncode}"
        raise UserError(f"the compiler broke down in {doing} ({last}); {hint}.")
    return found, peak


def show(report: dict[str, Any]) -> None:
    """Print a plan for people."""
    out = wide_console()
    assumed = report["assumed"]
    out.print(
        f"{report['topology']}: {report['devices']} devices of {human(report['memory'])}, rules "
        f"{report['rules']}; assumed {assumed['items']} items, {assumed['vocab']} tokens, fields "
        f"of {'+'.join(map(str, assumed['fields']))} tokens."
    )
    table = Table(
        "stage", "params", "optimizer", "frozen", "batch", "activations", "in all", "FLOPs",
        title="a device's memory; FLOPs of a step on all devices", title_justify="left", box=None,
    )  # fmt: skip
    for column in table.columns[1:]:
        column.justify = "right"
    for row in report["stages"]:
        held, compiled = row["held"], row["compiled"]
        sizes = [human(held[name]) for name in ("parameters", "optimizer", "frozen", "batch")]
        sign = "" if report["exact"] else "<"
        table.add_row(
            row["stage"], *sizes,
            sign + human(compiled["activations"]) if compiled else "-",
            f"{sign}{row['verdict']['high'] / report['memory']:.1%}" if compiled else "-",
            f"{row['flops']:.3g}" if row["flops"] else "-",
        )  # fmt: skip
    out.print(table)
    for row in report["stages"]:
        out.print(f"{row['stage']}: {row['parameters']:,} parameters. {row['verdict']['words']}")
        for knob in row["verdict"]["knobs"]:
            out.print(f"  would help: {knob}")
        if row.get("duration"):
            out.print(f"  {said_of_duration(row['duration'], report['length'])}")
        if row["collectives"]:
            parts = [
                f"{kind} {each['count']} x, {human(each['bytes'])}"
                for kind, each in row["collectives"].items()
            ]
            out.print(f"  communication a step and device: {'; '.join(parts)}")
        whole = [
            f"{name} {human(each['bytes'])} ({each['share']:.1%}, such as "
            f"{', '.join(each['largest'])})"
            for name, each in row["replicated"].items()
            if each["bytes"] and report["devices"] > 1
        ]
        if whole:
            out.print(f"  whole on every device: {'; '.join(whole)}")
    if not report["exact"]:
        out.print(
            "Compiled for as many CPU devices: parameters, optimizer, frozen and batch are exact, "
            "activations the CPU's (2 to 7 times too big for a TPU), and so is communication."
        )
        if report["topology"][0] == "v":
            out.print(
                "The TPU compiler says more: pip install 'jmrec[tpu-plan]' (libtpu, under the "
                "Google Cloud Platform Terms of Service)."
            )
    out.print(
        f"Planned in {report['seconds']:.0f} s with {human(report['peak_memory'])} of memory."
    )
