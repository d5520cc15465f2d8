"""Every engine yields what plainly zeroing the channels and running the whole network does."""

import pytest
import torch
from torch.nn import functional as F

import gpe
from gpe.ablation.choice import Engines
from gpe.ablation.engines import Rerun
from gpe.ablation.plan import make_plan, random_orders
from gpe.models.inside import layout_of
from tests.ablation.networks import CLASSES, NETWORKS, SIZE, Mixing, PlainHead, batches, network


def plan_of(width):
    return make_plan(
        random_orders(width, 2),
        counts=[0, 1, width // 3, width // 2, width - 1, width],
        ranges=[(0, width // 3), (width // 3, width // 2), (5, width - 3), (width // 2, width)],
        width=width,
    )


def logits_of(engine, images, plan):
    with torch.inference_mode():
        found = dict(engine.run(images, plan, range(len(plan.variants))))
    assert sorted(found) == list(range(len(plan.variants)))
    return [found[number] for number in sorted(found)]


@pytest.mark.parametrize("memory", (1, 2**22, 2**40))
@pytest.mark.parametrize("wanted", ("auto", "general"))
@pytest.mark.parametrize("name", NETWORKS)
def test_logits(name, wanted, memory):
    _, layer, width, chosen = NETWORKS[name]
    if name == "deeplab50" and memory != 2**22:
        pytest.skip("slow; the others show it")
    net, plan, images = network(name), plan_of(width), batches(1)[0][0]
    engines = Engines(net, layout_of(net, layer, images), wanted, memory)
    with torch.inference_mode():
        engine = engines.engine(images, plan)
    fits = {"auto": chosen, "general": "general" if chosen == "incremental" else chosen}
    assert engine.name == engines.record.name == fits[wanted]

    plain = logits_of(Rerun(net, layout_of(net, layer, images)), images, plan)
    for found, expected in zip(logits_of(engine, images, plan), plain, strict=True):
        if found.shape != expected.shape:
            assert found.shape[2] < expected.shape[2]
            found = F.interpolate(found, expected.shape[2:], mode="bilinear")
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert engines.record.measured <= engines.record.tolerance <= 1e-5


def test_an_upsampling_whose_size_comes_first_is_left_out_as_any_other():
    class SizeFirst(PlainHead):
        def forward(self, images):
            logits = super().forward(images)["logits"]
            return F.interpolate(size=images.shape[2:], mode="bilinear", input=logits)

    net, plan, images = SizeFirst().eval(), plan_of(24), batches(1)[0][0]
    engines = Engines(net, layout_of(net, "encoder", images), "general", 2**22)
    with torch.inference_mode():
        assert engines.engine(images, plan).name == "general"
    shape = logits_of(engines.engine(images, plan), images, plan)[0].shape
    assert shape[2:] == (SIZE[0] // 4, SIZE[1] // 4)


@pytest.mark.parametrize("name", NETWORKS)
def test_confusion(name):
    """Against a loop over rankings, removals and images that zeroes channels by a hook."""
    _, layer, width, _ = NETWORKS[name]
    net, whole = network(name), name == "classifier"
    data, orders = batches(1 if name == "deeplab50" else 2, whole=whole), random_orders(width, 2)
    regions = ["full"] if whole else {"all": (0, 0, *SIZE), "part": (3, 5, 40, 50)}
    rectangles = {"full": (0, 0, 1, 1)} if whole else regions
    counts, ranges = [0, width // 3], [(width // 3, width // 2)]
    options = {"layer": layer, "counts": counts, "ranges": ranges}
    results = [
        gpe.ablation_sweep(
            net, data, orders, regions=regions, num_classes=CLASSES, engine=engine, **options
        )
        for engine in ("auto", "general")
    ]
    images = sum(len(batch[0]) for batch in data)
    assert [result.images for result in results] == [images, images]

    spans = [("top", 0, 0), ("top", 0, width // 3), ("range", width // 3, width // 2)]
    expected = {}
    for ranking, order in orders.items():
        for removal, start, stop in spans:
            for pictures, labels, _ in data:
                labels = labels.view(-1, 1, 1) if whole else labels
                with gpe.ablated(net, layer, order[start:stop]), torch.no_grad():
                    logits = net(pictures)
                logits = logits[0] if isinstance(logits, tuple) else logits
                if isinstance(logits, dict):
                    logits = logits["out" if "out" in logits else "logits"]
                logits = logits[..., None, None] if whole else logits
                logits = F.interpolate(logits, labels.shape[1:], mode="bilinear")
                for region, (top, left, bottom, right) in rectangles.items():
                    cut = (slice(None), slice(top, bottom), slice(left, right))
                    predicted, labelled = logits.argmax(1)[cut], labels[cut]
                    kept = labelled != 255
                    pairs = CLASSES * labelled[kept] + predicted[kept]
                    key = (ranking, removal, start, stop, region)
                    counted = pairs.bincount(minlength=CLASSES**2).view(CLASSES, CLASSES)
                    expected[key] = expected.get(key, 0) + counted

    for result in results:
        keys = ("ranking", "removal", "start", "stop", "region")
        found = {tuple(row[key] for key in keys): row["confusion"] for row in result.rows}
        assert found.keys() == expected.keys()
        pixels = sum(int(matrix.sum()) for matrix in expected.values())
        moved = sum(int((found[key] - expected[key]).abs().sum()) // 2 for key in expected)
        # One in a million, rounded up: labels and pixels are all counted.
        assert moved <= 1 + pixels // 10**6
        for key, matrix in expected.items():
            torch.testing.assert_close(found[key].sum(1), matrix.sum(1), rtol=0, atol=0)


@pytest.mark.parametrize("engine", ("auto", "general"))
def test_images_of_different_sizes(engine):
    net, layer = network("deeplab18"), "backbone.layer4"
    sizes = ((48, 64), (64, 48), (48, 64), (33, 50))
    torch.manual_seed(0)
    data = [(torch.randn(1, 3, *s), torch.randint(CLASSES, (1, *s))) for s in sizes]
    options = {"layer": layer, "counts": [0, 40], "regions": ["full", "left"]}

    def sweep(data):
        orders = random_orders(128, 1)
        return gpe.ablation_sweep(net, data, orders, num_classes=CLASSES, engine=engine, **options)

    apart = [sweep([batch]) for batch in data]
    together = sweep(data)
    expected = sum(result.confusion for result in apart)
    torch.testing.assert_close(together.confusion, expected, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", (torch.float64, torch.bfloat16))
def test_other_types(dtype):
    net, plan = network("deeplab18").to(dtype), plan_of(128)
    images = batches(1)[0][0].to(dtype)
    engines = Engines(net, layout_of(net, "backbone.layer4", images), "auto", 2**20)
    with torch.inference_mode():
        assert engines.engine(images, plan).name == "incremental"
    eps = torch.finfo(dtype).eps
    assert eps / 100 < engines.record.measured <= engines.record.tolerance < 10000 * eps


def test_autocast():
    net, plan, images = network("deeplab18"), plan_of(128), batches(1)[0][0]
    engines = Engines(net, layout_of(net, "backbone.layer4", images), "auto", 2**20)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert engines.engine(images, plan).name == "incremental"
    assert 1e-5 < engines.record.measured <= engines.record.tolerance < 0.1


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_variants_are_not_batched_where_images_of_a_batch_depend_on_each_other():
    torch.manual_seed(0)
    net, plan, images = Mixing().eval(), plan_of(24), batches(1)[0][0]
    engines = Engines(net, layout_of(net, "encoder", images), "auto", 2**22)
    with torch.inference_mode():
        assert engines.engine(images, plan).name == "rerun"


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_wrong_trace_is_found_out_and_not_used():
    """Tracing sees one course of the network; evaluating takes another."""

    class Sly(PlainHead):
        def forward(self, images):
            traced = isinstance(images, torch.fx.Proxy)
            return self.head(self.encoder(images)) * (2 if traced else 1)

    torch.manual_seed(0)
    net, data = Sly().eval(), batches(1)
    with pytest.warns(UserWarning, match="incremental engine: off by 1.0e"):
        result = gpe.ablation_sweep(
            net,
            data,
            random_orders(24, 1),
            layer="encoder",
            counts=[0, 5],
            regions=["full"],
            num_classes=CLASSES,
        )
    assert result.engine.name == "rerun"
    assert "not incremental: off by" in result.engine.why
    assert "not general: off by" in result.engine.why
