"""Every estimator of mutual information against the closed form of correlated Gaussians."""

from jmrec.config import ConfigDict, choose, parse_arg, placeholder

ESTIMATORS = (
    "infonce", "nwj", "mine", "jsd", "smile", "smile_own", "club", "vclub", "l1out",
)  # fmt: skip


def get_config(arg: str | None = None) -> ConfigDict:
    """Return the configuration of the study."""
    args = parse_arg(
        arg, size="small", dimensions=20, nats=(2.0,), critic="separable", estimators="all"
    )
    tiny = choose("size", args.size, {"tiny": True, "small": False})
    names = ESTIMATORS if args.estimators == "all" else tuple(args.estimators.split("+"))

    config = ConfigDict()
    config.system = "gaussians"
    config.seeds = (0,) if tiny else (0, 1, 2)
    config.rules = "dp"
    config.wandb = ConfigDict({"mode": "disabled", "project": "jmrec", "name": placeholder(str)})

    config.dimensions = args.dimensions
    config.nats = tuple(float(each) for each in args.nats)
    config.estimators = names
    config.critic = ConfigDict(
        {"kind": args.critic, "hidden": 32 if tiny else 256, "width": 16 if tiny else 64}
    )
    # clip: SMILE's; decay: of MINE's moving average.
    config.hparams = ConfigDict({"clip": 5.0, "decay": 0.99})
    config.train = ConfigDict(
        {
            "steps": 300 if tiny else 4000,
            "batch_size": 64 if tiny else 256,
            "learning_rate": 3e-3 if tiny else 1e-3,
            "eval_every": 300 if tiny else 4000,
            "save_every": 100 if tiny else 1000,
            "patience": 0,
            "warmup": 100,
            "schedule": "cosine",
            "weight_decay": 0.0,
            "muon": 0.0,
            "clip": 1.0,
        }
    )
    config.evaluate = ConfigDict({"samples": 2000 if tiny else 50_000})
    return config
