"""Networks that nobody here wrote: what gpe makes of each beside hooks written by hand.

    python -m tests.networks.sweep --out results/networks.json [PART OF A NAME ...]

Random weights in float64, two random images. Two layers each: one of the middle and the last
feature map. What differs by more than rounding is WRONG, what is raised but an InputError CRASHED,
and the script ends with 1. The table is written after each network; networks that it has already
are passed over, so that the script can be stopped and started again.
"""

import argparse
import json
import sys
import warnings
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor, nn

import gpe
from gpe.ablation.choice import Engines
from gpe.ablation.plan import make_plan
from gpe.models.inside import layout_of
from gpe.models.stages import last_feature_map, layers_by_depth
from gpe.records import atomic, environment
from tests.networks.by_hand import build, output_of, pooled, scores, without

MODES = ("overall", "left", "kernel_flip_mirror", "kernel_flip_pair")
CHECKS = ("ranking", "ablation", "sweep")
BAD = ("WRONG", "CRASHED")
TOLERANCE = 1e-8  # of the largest score or logit, in float64

# How a network's stages and its last feature map lie, one word for both where these are alike.
NETWORKS: dict[str, str] = {
    **dict.fromkeys(
        (
            *("torchvision/alexnet", "torchvision/convnext_tiny", "torchvision/densenet121"),
            *("torchvision/efficientnet_b0", "torchvision/efficientnet_v2_s"),
            *("torchvision/googlenet", "torchvision/inception_v3", "torchvision/mnasnet0_5"),
            *("torchvision/maxvit_t", "torchvision/mobilenet_v2"),
            *("torchvision/mobilenet_v3_small", "torchvision/mobilenet_v3_large"),
            *("torchvision/regnet_x_400mf", "torchvision/regnet_y_400mf"),
            *("torchvision/resnet18", "torchvision/resnet50", "torchvision/resnext50_32x4d"),
            *("torchvision/shufflenet_v2_x0_5", "torchvision/squeezenet1_0"),
            *("torchvision/squeezenet1_1", "torchvision/vgg11", "torchvision/vgg11_bn"),
            *("torchvision/wide_resnet50_2",),
            *("timm/resnet18", "timm/resnet50d", "timm/resnetv2_50", "timm/resnet50_gn"),
            *("timm/resnet50_clip", "timm/seresnext26d_32x4d", "timm/ecaresnet26t"),
            *("timm/skresnet18", "timm/res2net50_14w_8s", "timm/resnest14d", "timm/cspresnet50"),
            *("timm/darknet53", "timm/densenet121", "timm/dla34", "timm/dpn68", "timm/vovnet39a"),
            *("timm/ese_vovnet19b_dw", "timm/efficientnet_b0", "timm/efficientnet_lite0"),
            *("timm/efficientnetv2_rw_t", "timm/tf_efficientnet_b0", "timm/mixnet_s"),
            *("timm/mnasnet_small", "timm/mobilenetv2_050", "timm/mobilenetv3_small_050"),
            *("timm/mobilenetv4_conv_small", "timm/fbnetc_100", "timm/ghostnet_100"),
            *("timm/ghostnetv2_100", "timm/hardcorenas_a", "timm/lcnet_050", "timm/tinynet_e"),
            *("timm/hrnet_w18_small", "timm/inception_v4", "timm/inception_next_atto"),
            *("timm/legacy_xception", "timm/regnetx_002", "timm/regnety_002", "timm/repvgg_a0"),
            *("timm/repghostnet_050", "timm/rexnet_100", "timm/selecsls42b", "timm/vgg11_bn"),
            *("timm/convnext_atto", "timm/convnextv2_atto", "timm/edgenext_xx_small"),
            *("timm/starnet_s1", "timm/fasternet_t0", "timm/hgnetv2_b0", "timm/mobileone_s0"),
            *("timm/nfnet_l0", "timm/nf_resnet50", "timm/gernet_s", "timm/efficientvit_b0"),
            *("timm/poolformer_s12", "timm/fastvit_t8", "timm/repvit_m0_9", "timm/rdnet_tiny"),
            *("timm/mobilevit_xxs", "timm/coatnet_nano_rw_224", "timm/maxvit_rmlp_pico_rw_256"),
            *("timm/davit_tiny", "timm/caformer_s18", "timm/tiny_vit_5m_224"),
            *("timm/swinv2_cr_tiny_ns_224", "timm/convmixer_768_32"),
        ),
        "NCHW",
    ),
    "timm/nest_tiny": "NCHW NHWC",  # its last norm lies the other way
    "torchvision/swin_t": "NHWC NCHW",  # it permutes before it pools
    "torchvision/swin_v2_t": "NHWC NCHW",
    **dict.fromkeys(
        (
            *("timm/swin_tiny_patch4_window7_224", "timm/sequencer2d_s", "timm/swin_s3_tiny_224"),
            *("timm/swinv2_tiny_window8_256", "timm/mambaout_femto"),
        ),
        "NHWC",
    ),
    **dict.fromkeys(
        (
            *("timm/hiera_tiny_224", "timm/mixer_s32_224", "timm/resmlp_12_224"),
            *("timm/gmlp_ti16_224", "timm/vit_base_patch32_siglip_256"),
        ),
        "NTC",
    ),
    **dict.fromkeys(
        (
            *("torchvision/vit_b_32", "timm/vit_tiny_patch16_224", "timm/deit_tiny_patch16_224"),
            *("timm/beit_base_patch16_224", "timm/eva02_tiny_patch14_224"),
        ),
        "1+NTC",
    ),
    "timm/deit_tiny_distilled_patch16_224": "2+NTC",
    "timm/cait_xxs24_224": "NTC 1+NTC",  # the class token comes in late
    "timm/xcit_nano_12_p16_224": "NTC 1+NTC",
}
# Of images, in pixels; those of a fixed size are made for this one.
SIDE = 64
SIDES = {
    **dict.fromkeys(("torchvision/inception_v3", "timm/inception_v4"), 96),
    "torchvision/maxvit_t": 224,
    "timm/eva02_tiny_patch14_224": 56,
}


def ranking(net: nn.Module, layer: str, layout: str, images: Tensor) -> tuple[float, str]:
    """How far scores are from those by hand, and a note.

    Scores are differences of latents, and as exact as these: relative to the largest of both.
    """
    found = gpe.rank_channels(net, [images], layer=layer, modes=MODES, subsets={"left": [0]})
    expected = scores(net, layer, images, layout)
    latents = pooled(output_of(net, layer, images), layout).abs().max()
    off = [distance(found[mode].scores, expected[mode], latents) for mode in MODES]
    return max(off), ""


def ablation(net: nn.Module, layer: str, layout: str, images: Tensor) -> tuple[float, str]:
    """How far logits without half of the channels are from those by hand."""
    order = order_of(net, layer, layout, images)
    channels = order[: len(order) // 2]
    expected = without(net, layer, images, layout, channels)
    with gpe.ablated(net, layer, channels), torch.no_grad():
        found = net(images)
    whole = without(net, layer, images, layout, channels[:0])
    return distance(found, expected), "" if distance(expected, whole) > 0 else "no logit changes"


def sweep(net: nn.Module, layer: str, layout: str, images: Tensor) -> tuple[float, str]:
    """How far logits of the sweep's engine are from those by hand; its answers have to agree."""
    order = order_of(net, layer, layout, images)
    width = len(order)
    removals = {"counts": [0, 1, width // 2, width], "ranges": [(width // 3, width // 2)]}
    with torch.inference_mode():
        plan = make_plan({"random": order}, width=width, **removals)
        engines = Engines(net, layout_of(net, layer, images), "auto", 2**28)
        found = dict(engines.engine(images, plan).run(images, plan, range(len(plan.variants))))
    off, labels = 0.0, torch.zeros(len(images), dtype=torch.int64)
    options = {"regions": ["full"], "num_classes": found[0].shape[1], "layer": layer}
    batches = [(images, labels)]
    result = gpe.ablation_sweep(net, batches, {"random": order}, **removals, **options)
    for number, confusion in zip(plan.variant_of, result.confusion, strict=True):
        expected = without(net, layer, images, layout, plan.channels(number))
        off = max(off, distance(found[number], expected))
        answers = expected.argmax(1).bincount(minlength=options["num_classes"])
        if not torch.equal(confusion[0, 0], answers):
            off = float("inf")
    return off, f"{result.engine.name}, {result.engine.measured:.1e} from zeroing by hand"


def order_of(net: nn.Module, layer: str, layout: str, images: Tensor) -> Tensor:
    """A random order of the channels."""
    width = pooled(output_of(net, layer, images), layout).shape[1]
    return torch.randperm(width, generator=torch.Generator().manual_seed(0))


def distance(one: Tensor, other: Tensor, size: Tensor | float = 1e-30) -> float:
    """Relative to the largest, or a larger size; infinite for other shapes and for NaN."""
    if one.shape != other.shape:
        return float("inf")
    off = (one - other).abs().max() / other.abs().max().clamp_min(size)
    return off.nan_to_num(float("inf")).item()


def checked(net: nn.Module, layer: str, layout: str, images: Tensor) -> dict:
    """A row of the table."""
    row: dict = {"layer": layer, "layout": layout}
    for check in (ranking, ablation, sweep):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                off, note = check(net, layer, layout, images)
        except gpe.InputError as error:
            row[check.__name__] = f"refused: {error}"
            continue
        except Exception as error:
            row[check.__name__] = f"CRASHED: {type(error).__name__}: {error}"[:200]
            continue
        row[check.__name__] = "equal" if off < TOLERANCE else "WRONG"
        row[f"{check.__name__}_difference"] = off
        if note:
            row[f"{check.__name__}_note"] = note
    return row


def rows_of(name: str) -> list[dict]:
    """Both layers of a network."""
    start, layouts, side = perf_counter(), NETWORKS[name], SIDES.get(name, SIDE)
    net, about = build(name, side), {"network": name, "side": side}
    if getattr(net, "num_classes", 0) > 1000:  # the matrices of 21,841 classes take gigabytes
        net = build(name, side, num_classes=1000)
    images = torch.rand(2, 3, side, side, dtype=torch.float64)
    stages, last = layers_by_depth(net, images), last_feature_map(net, images)
    middle, *_, end = layouts.split() * 2
    rows = []
    for layer, layout in ((stages[len(stages) // 2], middle), (last, end)):
        rows.append(about | checked(net, layer, layout, images))
    return [row | {"seconds": round(perf_counter() - start, 1)} for row in rows]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("names", nargs="*", default=[""], help="parts of names; all if none")
    options = parser.parse_args()
    rows = json.loads(options.out.read_text())["networks"] if options.out.exists() else []
    done = {row["network"] for row in rows}
    for name in NETWORKS:
        if name in done or not any(part in name for part in options.names):
            continue
        rows += rows_of(name)
        for row in rows[-2:]:
            print(*(row[k] for k in ("network", "layer", *CHECKS)), row["seconds"], flush=True)
        with atomic(options.out) as path:
            about = environment(torch.device("cpu")) | {"networks": rows}
            path.write_text(json.dumps(about, indent=1) + "\n")
    return int(any(row[check].startswith(BAD) for row in rows for check in CHECKS))


if __name__ == "__main__":
    sys.exit(main())
