"""All curves of an ablation, for several rankings and regions, in one pass over the images."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from gpe.ablation.choice import EngineName, Engines
from gpe.ablation.engines import pick_logits
from gpe.ablation.plan import Plan, Ranges, make_plan
from gpe.ablation.result import AblationResult, empty_result
from gpe.errors import InputError, expect_at_least_one, expect_one_of
from gpe.metrics.consistency import evaluating
from gpe.metrics.region_iou import Regions, resolve_regions
from gpe.models.layers import find_layer
from gpe.ops.region_confusion import region_confusion
