"""Which engine runs: the fastest whose logits are those of plainly zeroing channels."""

import warnings
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpe.ablation.engines import Engine, General, Rerun
from gpe.ablation.incremental import Incremental
from gpe.ablation.linear import fold_batch_norms, linear_start
from gpe.ablation.plan import Plan
from gpe.ablation.result import EngineRecord
from gpe.ablation.tracing import UntraceableError, cut, record
from gpe.errors import InputError

EngineName = Literal["auto", "general", "incremental"]

# Largest difference of logits, relative to the largest of them.
TOLERANCE = {
    torch.float64: 1e-12,
    torch.float32: 1e-5,
    torch.bfloat16: 5e-2,
    torch.float16: 5e-3,
}


class Engines:
    """Finds the engine for images of each shape that comes; only the last one is kept.

    On the first images, some variants are held against the plain way, the whole network with
    zeroed channels. An engine that differs by more than the tolerance is not used, such as for a
    network whose course depends on its data in a way that tracing does not see.
    """

    def __init__(self, model: nn.Module, layer: str, wanted: EngineName, memory: int):
        self.model, self.layer, self.wanted, self.memory = model, layer, wanted, memory
        self.record: EngineRecord | None = None
        self._shape, self._engine, self._distrusted = None, None, {}

    def engine(self, images: Tensor, plan: Plan) -> Engine:
        """For these images; the first call decides for the others."""
        if self._shape == images.shape[1:]:
            return self._engine
        reasons = dict(self._distrusted)
        for engine in self._candidates(images, reasons):
            if self.record is None or engine.name not in self.record.name:
                found = self._compared(engine, images, plan)
                why = "; ".join(f"not {name}: {reason}" for name, reason in reasons.items())
                found = EngineRecord(*found, why)
                if found.measured > found.tolerance:
                    reason = f"off by {found.measured:.1e} of the largest logit"
                    self._distrusted[engine.name] = reasons[engine.name] = reason
                    warnings.warn(f"{engine.name} engine: {reason}; not used", stacklevel=4)
                    continue
                self.record = found if self.record is None else self.record.merge(found)
            self._shape, self._engine = images.shape[1:], engine
            return engine
        raise InputError(
            f"engine: expected a network that the {self.wanted} one can serve, got another: "
            f"{reasons[self.wanted]}"
        )

    def _candidates(self, images: Tensor, reasons: dict[str, str]):
        """Engines that may run, the fastest first; ``reasons`` gets why others may not."""
        try:
            parts = cut(self.model, self.layer, images)
        except UntraceableError as error:
            reasons["general"] = reasons["incremental"] = str(error)
        else:
            if self.wanted != "general" and "incremental" not in reasons:
                after = fold_batch_norms(parts.after)
                start = linear_start(after, record(after, *parts.before(images[:1])))
                if isinstance(start, str):
                    reasons["incremental"] = start
                else:
                    yield Incremental(parts, start, images, self.memory)
            if self.wanted != "incremental" and "general" not in reasons:
                yield General(parts, images, self.memory)
        if self.wanted != "incremental":
            yield Rerun(self.model, self.layer)

    def _compared(self, engine: Engine, images: Tensor, plan: Plan) -> tuple[str, float, float]:
        """An engine's name, its tolerance, and how far it is from the plain way."""
        if isinstance(engine, Rerun):
            return engine.name, 0.0, 0.0
        checked, measured = _some(plan), 0.0
        plain = dict(Rerun(self.model, self.layer).run(images[:1], plan, checked))
        for variant, logits in engine.run(images[:1], plan, checked):
            expected = plain[variant].double()
            if logits.shape != expected.shape:
                logits = F.interpolate(logits.double(), expected.shape[2:], mode="bilinear")
            off = (logits.double() - expected).abs().max() / expected.abs().max().clamp_min(1e-30)
            # NaN would compare as small.
            measured = max(measured, off.nan_to_num(float("inf")).item())
        return engine.name, _tolerance(plain[variant]), measured


def _tolerance(logits: Tensor) -> float:
    """For logits that a network yields under the present settings."""
    kind, dtypes = logits.device.type, [logits.dtype]
    if torch.is_autocast_enabled(kind):
        dtypes.append(torch.get_autocast_dtype(kind))
    if kind == "cuda" and torch.backends.cudnn.conv.fp32_precision != "ieee":
        dtypes.append(torch.float16)  # TensorFloat-32 has as many digits, and is the default
    return max(TOLERANCE[dtype] for dtype in dtypes)


def _some(plan: Plan) -> Sequence[int]:
    """A few variants: of the first ranking and of the last, tops and ranges."""
    last = len(plan.variants) - 1
    return sorted({last // 3, 2 * last // 3, last})
