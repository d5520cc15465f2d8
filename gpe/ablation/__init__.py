"""What a network loses without some of its channels (paper, section 4.2.2, Figures 4 to 6)."""

from gpe.ablation.classification import ClassifierAblation, answers_sweep, classifier_sweep
from gpe.ablation.masking import ablated
from gpe.ablation.plan import random_orders
from gpe.ablation.result import AblationResult, EngineRecord, bands
from gpe.ablation.sweep import ablation_sweep

__all__ = [
    "AblationResult",
    "ClassifierAblation",
    "EngineRecord",
    "ablated",
    "ablation_sweep",
    "answers_sweep",
    "bands",
    "classifier_sweep",
    "random_orders",
]
