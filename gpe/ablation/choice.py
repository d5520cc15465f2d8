"""Which engine runs: the fastest whose logits are those of plainly zeroing channels."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpe.ablation.engines import Engine, General, Rerun, zeroed_by_hand
from gpe.ablation.incremental import Incremental
from gpe.ablation.linear import fold_batch_norms, linear_start
from gpe.ablation.masking import expect_effect
from gpe.ablation.plan import Plan
from gpe.ablation.result import EngineRecord
from gpe.ablation.tracing import Cut, UntraceableError, cut, record, run
from gpe.errors import InputError
from gpe.models.layout import Layout
from gpe.models.running import RefusedError, forward, pick_logits

EngineName = Literal["auto", "general", "incremental"]

# Largest difference of logits, relative to the largest of them.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 5e-2, torch.float16: 5e-3}


class Engines:
    """Finds the engine for images of each shape that comes; only the last one is kept.

    On the first images, some variants are held against zeroing by hand and running the whole
    network. An engine that differs by more than the tolerance is not used, such as for a network
    whose course depends on its data in a way that tracing does not see.
    """

    def __init__(self, model: nn.Module, layout: Layout, wanted: EngineName, memory: int):
        self.model, self.layout, self.wanted, self.memory = model, layout, wanted, memory
        self.record: EngineRecord | None = None
        self._found: tuple[torch.Size, Engine] | None = None
        self._distrusted: dict[str, str] = {}

    def engine(self, images: Tensor, plan: Plan) -> Engine:
        """For these images; the first call decides for the others."""
        if self._found is not None and self._found[0] == images.shape[1:]:
            return self._found[1]
        if self.record is None:
            expect_effect(self.model, self.layout, images[:1], pick_logits)
        reasons = dict(self._distrusted)
        for engine in self._candidates(images, reasons):
            known = self.record is not None and engine.name in self.record.name
            if not known and (reason := self._trusted(engine, images, plan, reasons)):
                self._distrusted[engine.name] = reasons[engine.name] = reason
                warnings.warn(f"{engine.name} engine: {reason}; not used", stacklevel=4)
                continue
            self._found = images.shape[1:], engine
            return engine
        if self.wanted == "incremental":
            raise InputError(
                f"engine: expected a network that the {self.wanted} one can serve, got another: "
                f"{reasons[self.wanted]}"
            )
        raise InputError(
            "model: expected one that yields the logits again that it does with channels zeroed "
            f"by hand, got {type(self.model).__name__}, which is {reasons['rerun']}"
        )

    def _candidates(self, images: Tensor, reasons: dict[str, str]) -> Iterator[Engine]:
        """Engines that may run, the fastest first; ``reasons`` gets why others may not."""
        wanted = {
            "auto": ("incremental", "general", "rerun"),
            "incremental": ("incremental",),
            "general": ("general", "rerun"),  # which is the general one where nothing can be cut
        }[self.wanted]
        try:
            parts = cut(self.model, self.layout.layer, images)
        except (UntraceableError, RefusedError) as error:
            reasons.update(incremental=_said(error), general=_said(error))
        makes = {"incremental": self._incremental, "general": self._general}
        for name in makes:
            if name in reasons or name not in wanted:
                continue
            try:
                engine = makes[name](parts, images)
            except (UntraceableError, RefusedError) as error:
                reasons[name] = _said(error)
            else:
                yield engine
        if "rerun" in wanted and "rerun" not in reasons:
            yield Rerun(self.model, self.layout)

    def _general(self, parts: Cut, images: Tensor) -> Engine:
        return General(parts, self.layout, images, self.memory)

    def _incremental(self, parts: Cut, images: Tensor) -> Engine:
        if self.layout.dims != (1,):
            raise UntraceableError(f"the channels lie in dimension {self.layout.dims[0]}")
        after = fold_batch_norms(parts.after)
        start = linear_start(after, record(after, *run(parts.before, images[:1])))
        return Incremental(parts, start, images, self.memory)

    def _trusted(
        self, engine: Engine, images: Tensor, plan: Plan, reasons: Mapping[str, str]
    ) -> str:
        """Why an engine is not trusted; empty where it is, and then it is on record."""
        checked, measured = _some(plan), 0.0
        plain = {}
        for variant in checked:
            with zeroed_by_hand(self.model, self.layout, plan.channels(variant)):
                logits = pick_logits(forward(self.model, images[:1]))
            if not isinstance(logits, Tensor):
                came = type(logits).__name__
                raise InputError(f"model: expected logits [N,K,h,w], got {came}")
            plain[variant] = logits
        try:
            found = dict(engine.run(images[:1], plan, checked))
        except RefusedError as error:
            return _said(error)
        for variant, logits in found.items():
            expected = plain[variant].double()
            if logits.shape != expected.shape:
                logits = F.interpolate(logits.double(), expected.shape[2:], mode="bilinear")
            off = (logits.double() - expected).abs().max() / expected.abs().max().clamp_min(1e-30)
            # NaN would compare as small.
            measured = max(measured, off.nan_to_num(float("inf")).item())
        tolerance = _tolerance(plain[checked[0]])
        if measured > tolerance:
            return f"off by {measured:.1e} of the largest logit"
        why = "; ".join(f"not {name}: {reason}" for name, reason in reasons.items())
        fitting = EngineRecord(engine.name, tolerance, measured, why)
        self.record = fitting if self.record is None else self.record.merge(fitting)
        return ""


def _said(error: Exception) -> str:
    return f"it does not run: {error.reason}" if isinstance(error, RefusedError) else str(error)


def _tolerance(logits: Tensor) -> float:
    """For logits that a network yields under the present settings."""
    kind, dtypes = logits.device.type, [logits.dtype]
    if torch.is_autocast_enabled(kind):
        dtypes.append(torch.get_autocast_dtype(kind))
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    if kind == "cuda" and convolutions.fp32_precision != "ieee":
        dtypes.append(torch.float16)  # TensorFloat-32 has as many digits, and is the default
    return max(TOLERANCE[dtype] for dtype in dtypes)


def _some(plan: Plan) -> Sequence[int]:
    """A few variants: of the first ranking and of the last, tops and ranges."""
    last = len(plan.variants) - 1
    return sorted({last // 3, 2 * last // 3, last})
