"""What a field of a configuration can say about itself, and all that follows from it.

A field made by :func:`option` holds its help, bounds and whether the preset decides it; its type
holds its choices. The command line, its ``--help``, the checks and the name of the run's directory
are made from these (:mod:`gpe.cli`). Nothing here imports torch, so that help appears at once.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from itertools import product
from pathlib import Path
from types import MappingProxyType, NoneType, UnionType
from typing import Any, ClassVar, Literal, NamedTuple, Self, Union, get_args, get_origin
from typing import get_type_hints as type_hints

from gpe.choices import Precision
from gpe.errors import InputError, expect_one_of
from gpe.records import directory_name


@dataclass(frozen=True)
class Option:
    """What a field says about itself.

    Attributes:
        help: a whole phrase, as ``--help`` shows it.
        flag: its name on the command line, where that is not the field's own.
        argument: whether it comes without a flag.
        hidden: whether it is none of the command's; the run fills it in.
        preset: whether the preset decides it where it is not given.
        several: the values of a swept field that a command takes where none are given.
        unset: what None stands for, as ``--help`` shows it.
        group: heading in ``--help``.
        at_least, at_most, above: bounds of the number, or of each of several.
        check: raises an InputError for what it is given, the field's name and value.
    """

    help: str
    flag: str = ""
    argument: bool = False
    hidden: bool = False
    preset: bool = False
    several: str = ""
    unset: str = ""
    group: str = ""
    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    check: Callable[[str, Any], None] | None = None


def option(help: str, default: Any = MISSING, **settings: Any) -> Any:
    """A field of a configuration; ``settings`` are those of :class:`Option`."""
    return field(default=default, metadata={"option": Option(help, **settings)})


def preset_option(help: str, **settings: Any) -> Any:
    """A field whose default is the preset's."""
    return option(help, preset=True, **{"group": "Hyperparameters", **settings})


def option_of(one: Field) -> Option:
    """What a field says about itself."""
    return one.metadata["option"]


# Options that several experiments have.

RANDOM, PRETRAINED = "random", "pretrained"

MODEL_HELP = (
    "A network: a run of gpe location, augshift or segment train; a name of torchvision or timm, "
    "resnet18 or timm/resnet50.a1_in1k; or a file of weights"
)
WEIGHTS_HELP = "pretrained; random, the control; or a file of the named network's weights"


TORCHRUN_HELP = (
    "On 8 GPUs: torchrun --nproc-per-node 8 --no-python gpe COMMAND …; on two machines of 8 add "
    "--nnodes 2 --rdzv-backend c10d --rdzv-endpoint HOST:PORT on both, with a --root and --out "
    "that both see. The batch size is that of all processes together."
)


def seed_option(help: str) -> Any:
    return option(help, 0, at_least=0, at_most=2**63 - 1)


def device_option() -> Any:
    return option("auto, cpu, cuda or cuda:N", "auto", check=_expect_device)


def precision_option() -> Any:
    return option("fp32 or bf16", "fp32")


def channel_dim_option() -> Any:
    return option(
        "Dimension of the layer's channels; negative from the end",
        None,
        unset="by a look at the network",
    )


def batch_size_option(default: int | None = MISSING, **settings: Any) -> Any:  # type: ignore[assignment]
    return option("Images in a batch", default, at_least=1, **settings)


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where a command finds and leaves things, and what it does where it was run before."""

    root: Path = option("Directory of the dataset's files", Path("data"))
    download: bool = option("Download CIFAR into --root", False)
    workers: int | None = option("Processes that read images", None, unset="one a core", at_least=0)
    max_pixels: int | None = option(
        "Largest image that is read (pixels)", None, unset="179 million", at_least=1
    )
    sync_batch_norm: bool = option("Under torchrun: batch norm over all processes", True)
    out: Path = option("Directory of the runs", Path("runs"))
    resume: bool = option("Continue an interrupted run; --no-resume starts it again", True)
    force: bool = option("Run again what is finished", False)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Every option of one run; the record holds it.

    Subclasses declare fields by :func:`option`. Those that decide a run's results belong here, all
    others to :class:`Places`.

    Raises:
        InputError: a value outside what its field says.
    """

    # By preset, the values of the fields made by preset_option.
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    # Fields of which a command takes several values, a run for each combination; the first change
    # slowest.
    SWEPT: ClassVar[Sequence[str]] = ()

    def __post_init__(self) -> None:
        for one in fields(self):
            _check(one, hints_of(type(self))[one.name], getattr(self, one.name))

    @classmethod
    def of(cls, **given: Any) -> Self:
        """The configuration of a command: values that are None are the preset's or the default."""
        given = {name: value for name, value in given.items() if value is not None}
        if given.get("device", "auto") == "auto" and "device" in hints_of(cls):
            given["device"] = best_device()
        return cls(**(cls.preset_values(given) | given))

    @classmethod
    def preset_values(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """What the preset says, for what else is given."""
        if not cls.PRESETS:
            return {}
        preset = given.get("preset", next(iter(cls.PRESETS)))
        expect_one_of("preset", preset, list(cls.PRESETS))
        return {**cls.PRESETS[preset], "preset": preset}

    @classmethod
    def several(cls, **given: Any) -> list[Self]:
        """A configuration for each combination of the values of the fields in ``SWEPT``.

        Raises:
            InputError: as the class itself.
        """
        choices = [given.get(name) or (None,) for name in cls.SWEPT]
        combinations = (dict(zip(cls.SWEPT, each, strict=True)) for each in product(*choices))
        return list(dict.fromkeys(cls.of(**given | each) for each in combinations))

    @property
    def title(self) -> tuple[str, ...]:
        """What the name of the run's directory begins with."""
        raise NotImplementedError

    @property
    def name(self) -> str:
        """Of the run's directory: no two configurations share one."""
        return directory_name(self, *(part.replace("/", "-").strip("-.") for part in self.title))

    @property
    def paper(self) -> dict[str, Any] | None:
        """What the paper has for this run, for the record; None where it has nothing."""
        return None


class TrainingConfig(Config):
    """What the training loop asks of a configuration; each declares these in its own order."""

    epochs: int
    seed: int
    device: str
    precision: Precision
    compile: bool


class Command(NamedTuple):
    """A command of ``gpe``.

    Attributes:
        name: as typed, ``"segment train"``.
        config: its options.
        run: function in the experiment's ``run.py``:
            ``(configs, places, progress, **extra) -> directories of the records``.
        help: first a sentence, then what else there is to say.
        places: names in :class:`Places`.
        extra: a dataclass of options that decide which configurations there are.
        only: the fields of ``config`` that are its options, where they are not all.
        fixed: values of others.
    """

    name: str
    config: type[Config]
    run: str
    help: str
    places: tuple[str, ...]
    extra: type | None = None
    only: tuple[str, ...] = ()
    fixed: Mapping[str, Any] = MappingProxyType({})


def hints_of(cls: type) -> dict[str, Any]:
    """The types of a configuration's fields."""
    if cls not in _HINTS:
        _HINTS[cls] = type_hints(cls)
    return _HINTS[cls]


_HINTS: dict[type, dict[str, Any]] = {}


def plain_type(hint: Any) -> Any:
    """``int`` of ``int | None``."""
    if get_origin(hint) in (Union, UnionType):
        return next(kind for kind in get_args(hint) if kind is not NoneType)
    return hint


def choices_of(hint: Any) -> tuple[str, ...]:
    """What a ``Literal`` allows; empty for other types."""
    return get_args(hint) if get_origin(hint) is Literal else ()


def short_names(model: str, weights: str | None = None) -> tuple[str, ...]:
    """What the arguments of :func:`open_trained` are called in the name of a directory."""
    name = Path(model).name if Path(model).exists() else model
    if weights is None:
        return (name,)
    return name, weights if weights in (PRETRAINED, RANDOM) else Path(weights).stem


def best_device() -> str:
    """The first GPU, or the CPU where there is none."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _check(one: Field, hint: Any, value: Any) -> None:
    if value is None or "option" not in one.metadata:
        return
    said, kind = option_of(one), plain_type(hint)
    values, name = [value], one.name
    if get_origin(kind) is tuple:
        parts = get_args(kind)
        kind = parts[0]
        if ... not in parts and len(value) != len(parts):
            numbers = ", ".join(map(str, value))
            raise InputError(f"{name}: expected {len(parts)} values, got {len(value)}: {numbers}")
        values = list(value)
    for each in values:
        if choices := choices_of(kind):
            expect_one_of(name, each, choices)
        for what, bound, right in _bounds(said, each):
            if not right:  # NaN is never
                raise InputError(f"{name}: expected {what} {bound}, got {each}")
        if said.check is not None:
            said.check(name, each)


def _bounds(said: Option, value: Any) -> Iterator[tuple[str, float, bool]]:
    if said.at_least is not None:
        yield "at least", said.at_least, value >= said.at_least
    if said.above is not None:
        yield "above", said.above, value > said.above
    if said.at_most is not None:
        yield "at most", said.at_most, value <= said.at_most


def _expect_device(name: str, value: str) -> None:
    """Raise an InputError unless ``value`` is a CPU or a GPU that is there."""
    import torch

    try:
        device = torch.device(value)
    except RuntimeError:
        raise InputError(f"{name}: expected cpu, cuda or cuda:N, got {value!r}") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"{name}: expected one that is there, got {value}; "
            f"torch sees {torch.cuda.device_count()} GPUs"
        )
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"{name}: expected cpu, cuda or cuda:N, got {value!r}")
