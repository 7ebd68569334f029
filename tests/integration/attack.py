"""Damage and swap what jmrec reads, bring it hostile files, and look how each is answered.

Every case is a command on a file that is broken in one way. It is answered well where jmrec says
one sentence and ends with exit code 2, or gives the same answer as undamaged, within ten seconds
and 1 GB beyond what the undamaged command takes. Another answer with exit code 0, a traceback, a
hang, a crash, or the code of a stranger that ran is a fault.

By hand, the whole (about half an hour on two idle cores) and a tenth of it:
  python tests/integration/attack.py --seed 7
  python tests/integration/attack.py --seed 7 --tenth
"""

import argparse
import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from attack_bench import SECONDS, Case, Worker, judge, make, plant
from attack_cases import artefact_cases, config_cases, damage_cases, model_cases


def attack(
    folder: Path, seed: int, whole: bool, say: Callable[[str], None] = print
) -> tuple[int, list[str]]:
    """Attack; return how many cases there were, and what was answered wrongly.

    Args:
      folder: An empty folder.
      seed: Of the draws.
      whole: Whether all is tried, or a tenth.
      say: Where the progress goes.
    """
    home = folder / "home"
    home.mkdir(parents=True)
    worker = Worker(home)
    rng = random.Random(seed)
    wrong: list[str] = []
    done = 0
    try:
        bench = make(folder, worker, rng, say)
        plant(bench)
        share = 1.0 if whole else 0.1
        groups: dict[str, Iterator[Case]] = {
            "damages": damage_cases(bench, whole),
            "models": model_cases(bench, int(200 * share)),
            "artefacts": artefact_cases(bench, int(80 * share)),
            "configs": config_cases(bench, int(40 * share) or 4),
        }
        for name, cases in groups.items():
            before = done
            for case in cases:
                if name == "damages" and not whole and done - before >= 40:
                    break
                case.prepare()
                try:
                    answer = worker.ask(case.words, case.cost + SECONDS + 20)
                finally:
                    case.restore()
                done += 1
                if fault := judge(case, answer, worker.mark):
                    wrong.append(f"{case.name}: {fault}")
                    say(f"WRONG {wrong[-1]}")
            say(f"{name}: {done - before} cases, {len(wrong)} answered wrongly so far")
    finally:
        worker.end()
    return done, wrong


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line; return 1 where anything was answered wrongly."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, help="of the draws; random by default")
    parser.add_argument("--tenth", action="store_true", help="try a tenth")
    parser.add_argument("--folder", type=Path, help="an empty folder to keep; else a temporary one")
    args = parser.parse_args(argv)
    seed = random.SystemRandom().randrange(2**31) if args.seed is None else args.seed
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary) / "attack"
        count, wrong = attack(
            folder, seed, not args.tenth, say=lambda text: print(text, flush=True)
        )
    print("\n".join(wrong) if wrong else f"{count} cases, all answered well")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
