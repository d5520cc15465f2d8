"""One pass for all curves: each set of channels once, in pieces and over processes the same."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import gpe
from gpe.ablation import bands, random_orders
from gpe.ablation.plan import make_plan
from gpe.errors import InputError
from tests.ablation.networks import CLASSES, PlainHead, batches, network

OPTIONS = {
    "layer": "encoder",
    "counts": [0, 6, 12],
    "ranges": 8,
    "regions": ["full", "left", "centre", "right"],
    "num_classes": CLASSES,
}


@pytest.fixture(scope="module")
def net():
    return network("plain head")


def sweep(net, data, rankings=None, **options):
    rankings = random_orders(24, 2) if rankings is None else rankings
    return gpe.ablation_sweep(net, data, rankings, **(OPTIONS | options))


def assert_same(found, expected):
    assert found._job() == expected._job()
    torch.testing.assert_close(found.confusion, expected.confusion, rtol=0, atol=0)
    assert (found.images, found.batches, found.ids) == (
        expected.images,
        expected.batches,
        expected.ids,
    )
    assert found.engine.name == expected.engine.name


def test_rows_say_what_was_removed_where(net):
    rows = sweep(net, batches(), {"a": range(24), "b": torch.arange(24).flip(0)}).rows
    assert len(rows) == 2 * (3 + 3) * 4
    spans = [(row["removal"], row["start"], row["stop"]) for row in rows[::4]]
    top, ranges = [("top", 0, n) for n in (0, 6, 12)], [("range", i, i + 8) for i in (0, 8, 16)]
    assert spans == 2 * (top + ranges)
    assert [row["ranking"] for row in rows] == 24 * ["a"] + 24 * ["b"]
    assert [row["region"] for row in rows[:4]] == OPTIONS["regions"]
    for full, left, _, right in zip(*[iter(rows)] * 4, strict=True):
        halves = left["confusion"] + right["confusion"]
        torch.testing.assert_close(full["confusion"], halves, rtol=0, atol=0)
        assert full["miou"] == gpe.metrics.mean_iou(full["confusion"]).item()
        assert 0 < full["miou"] < 1


def test_the_untouched_network_is_the_same_for_all_rankings(net):
    rows = [row for row in sweep(net, batches()).rows if row["stop"] == 0]
    expected = rows[:4]
    for row, other in zip(rows[4:], expected, strict=True):
        torch.testing.assert_close(row["confusion"], other["confusion"], rtol=0, atol=0)


def test_each_set_of_channels_runs_once():
    """The untouched network, and tops that are ranges, are common to curves."""
    orders = {"a": range(24), "b": [1, 0, *range(2, 24)]}
    plan = make_plan(orders, counts=[0, 1, 8, 24], ranges=8, width=24)
    assert len(plan.points) == 2 * (4 + 3)
    removed = [frozenset(plan.channels(number).tolist()) for number in range(len(plan.variants))]
    assert len(removed) == len(set(removed)) == 7
    for point, number in zip(plan.points, plan.variant_of, strict=True):
        order = plan.orders[point.ranking].tolist()
        assert removed[number] == frozenset(order[point.start : point.stop])


def test_integers_stand_for_steps():
    plan = make_plan({"a": range(2048)}, counts=100, ranges=100, width=2048)
    spans = [point[1:] for point in plan.points]
    assert spans[:21] == [("top", 0, 100 * n) for n in range(21)]
    assert spans[21:] == [("range", 100 * n, 100 * n + 100) for n in range(20)]


def test_a_ranking_may_be_an_object_with_an_order(net):
    order = random_orders(24, 1)["random/0"]
    expected = sweep(net, batches(), {"a": order})
    assert_same(sweep(net, batches(), {"a": SimpleNamespace(order=order)}), expected)


def test_rank_and_ablate():
    """What ranking yields goes into the sweep as it is."""
    net, data = network("deeplab18"), batches()
    modes = ("overall", "kernel_flip_pair", "random", "random:1")
    rankings = gpe.rank_channels(
        net, [images for images, *_ in data], layer="backbone.layer4", modes=modes
    )
    result = sweep(net, data, rankings, layer="backbone.layer4", counts=32, ranges=32)
    assert result.engine.name == "incremental"
    removed = {row["ranking"]: row for row in result.rows if row["stop"] == 96}
    assert list(removed) == list(modes)
    for mode in modes:
        assert result.orders[mode].tolist() == rankings[mode].order.tolist()
    curves = {row["ranking"]: row["seeds"] for row in bands(result.rows)}
    assert curves == {"overall": 1, "kernel_flip_pair": 1, "random": 2}


def test_the_network_keeps_its_mode_and_its_weights():
    net = network("plain head").train()
    weights = {name: value.clone() for name, value in net.state_dict().items()}
    sweep(net, batches())
    assert all(module.training for module in net.modules())
    assert not any(module._forward_hooks for module in net.modules())
    for name, value in net.state_dict().items():
        torch.testing.assert_close(value, weights[name], rtol=0, atol=0)
        assert value.requires_grad == weights[name].requires_grad


def test_a_result_comes_back_from_its_file(net, tmp_path):
    for regions in (["full"], {"part": (0, 3, 20, 40)}):
        result = sweep(net, batches(), regions=regions)
        result.save(tmp_path / "ablation.safetensors")
        loaded = gpe.AblationResult.load(tmp_path / "ablation.safetensors")
        assert_same(loaded, result)
        assert loaded.engine == result.engine
        assert [row["miou"] for row in loaded.rows] == [row["miou"] for row in result.rows]
        for name, order in result.orders.items():
            torch.testing.assert_close(loaded.orders[name], order)


def test_files_that_hold_no_result(tmp_path):
    with pytest.raises(InputError, match="path: there is no"):
        gpe.AblationResult.load(tmp_path / "none")
    (tmp_path / "other").write_bytes(b"something else")
    with pytest.raises(InputError, match="damaged or no ablation"):
        gpe.AblationResult.load(tmp_path / "other")


def test_merging_is_as_one_sweep(net):
    data = batches(3)
    merged = sweep(net, data[2:]).merge(sweep(net, data[:2]))
    assert_same(merged, sweep(net, data))


def test_results_that_do_not_belong_together(net):
    data = batches(2)
    result = sweep(net, data[:1])
    with pytest.raises(InputError, match="got another in orders"):
        result.merge(sweep(net, data[1:], {"random/0": range(24), "random/1": range(24)}))
    with pytest.raises(InputError, match="got another in points"):
        result.merge(sweep(net, data[1:], counts=[0]))
    with pytest.raises(InputError, match="got another in layer"):
        result.merge(replace(result, layer="head"))
    with pytest.raises(InputError, match="expected other images, got 0/0 in both"):
        result.merge(result)


class Interrupted(Exception):
    """Stands for a machine that stops."""


@pytest.mark.parametrize("done", (1, 2, 3, 4))
def test_an_interrupted_sweep_goes_on(net, tmp_path, done):
    data, path = batches(4), tmp_path / "sums.safetensors"
    expected = sweep(net, data)

    def stopping():
        yield from data[:done]
        raise Interrupted

    with pytest.raises(Interrupted):
        sweep(net, stopping(), checkpoint=path, every=2)
    assert path.exists() == (done >= 2)
    seen = gpe.AblationResult.load(path).batches if path.exists() else 0
    assert seen == done // 2 * 2

    # What the file has is not run again: its images may be anything but another size.
    spoilt = [(torch.zeros_like(images), *rest) for images, *rest in data[:seen]]
    for _ in range(2):  # the second finds everything done
        resumed = sweep(net, spoilt + data[seen:], checkpoint=path, every=2)
        assert_same(resumed, expected)


@pytest.mark.parametrize(("seconds", "kept"), [(0.0, True), (1000.0, False)])
def test_a_sweep_of_a_few_slow_batches_is_kept_too(net, tmp_path, monkeypatch, seconds, kept):
    """Twenty batches of Figure 4 may take ten minutes, which an interruption would have lost."""
    monkeypatch.setattr("gpe.ablation.sweep.SECONDS", seconds)
    path = tmp_path / "sums.safetensors"

    def stopping():
        yield from batches(1)
        raise Interrupted

    with pytest.raises(Interrupted):
        sweep(net, stopping(), checkpoint=path)
    assert path.exists() == kept


def test_a_checkpoint_of_other_batches_is_refused(net, tmp_path):
    """It says how many batches are done, which then would not be the same images."""
    path, data = tmp_path / "sums.safetensors", batches(2)
    done = sweep(net, data[:1], checkpoint=path).images
    single = [tuple(part[:1] for part in batch) for batch in data]
    for again in (single, single[:1]):
        with pytest.raises(InputError, match=f"checkpoint: .* had {done} images, got 1"):
            sweep(net, again, checkpoint=path)


def test_an_ignored_class_has_no_iou_as_in_region_iou(net):
    data = [(images, labels.where(labels != 255, 0)) for images, labels, _ in batches(2)]
    metric = gpe.RegionIoU(CLASSES, regions="full", ignore_index=0)
    for images, labels in data:
        with torch.no_grad():
            metric.update(net(images)["logits"], labels)
    row = sweep(net, data, counts=[0], ranges=(), regions=["full"], ignore_index=0).rows[0]
    assert row["confusion"][1:, 0].sum() > 0  # predicted where it is not
    assert row["miou"] == pytest.approx(metric.compute()["full"])


def test_only_seeds_are_a_band():
    point = {"removal": "top", "start": 0, "stop": 5, "region": "full"}
    kept = ["overall", "activity:left", "activity:right", "activity:3x4:5", "activity:3x4:6"]
    seeds = ["random", "random:1", "matched:2", "matched:3"]
    curves = bands({"ranking": name, "miou": 0.5, **point} for name in (*kept, *seeds))
    found = {curve["ranking"]: curve["seeds"] for curve in curves}
    assert found == dict.fromkeys(kept, 1) | {"random": 2, "matched": 2}


def test_a_checkpoint_of_another_sweep_is_refused(net, tmp_path):
    path = tmp_path / "sums.safetensors"
    sweep(net, batches(1), checkpoint=path)
    with pytest.raises(InputError, match=r"checkpoint: .* cannot be continued: .* points"):
        sweep(net, batches(2), counts=[0], checkpoint=path)


def two_processes(rank, meet, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=meet, rank=rank, world_size=2)
    net, data = network("plain head"), batches(3)
    result = sweep(net, data[rank::2], checkpoint=folder / "sums.safetensors")
    result.save(folder / f"{rank}.safetensors")
    # One process may be left without images; and the same images are not counted twice.
    result = sweep(net, data if rank else [])
    result.save(folder / f"{rank}-alone.safetensors")
    with pytest.raises(InputError, match="expected other images, got 0/0 in both"):
        sweep(net, data)
    torch.distributed.destroy_process_group()


def test_two_processes_are_one(net, tmp_path):
    meet = f"file://{tmp_path}/meet"
    torch.multiprocessing.spawn(two_processes, (meet, tmp_path), nprocs=2)
    expected = sweep(net, batches(3))
    for name in ("0", "1", "0-alone", "1-alone"):
        assert_same(gpe.AblationResult.load(tmp_path / f"{name}.safetensors"), expected)
    parts = sorted(tmp_path.glob("sums-*-of-2.safetensors"))
    assert [gpe.AblationResult.load(part).images for part in parts] == [4, 2]


def test_bands_are_over_seeds(net):
    rankings = {"normal": range(24)} | random_orders(24, seeds=[3, 5, 7])
    rows = sweep(net, batches(), rankings).rows
    curves = bands(rows)
    assert len(curves) == 2 * 6 * 4
    point = next(c for c in curves if c["ranking"] == "random" and c["stop"] == 12)
    of_seeds = torch.tensor(
        [
            row["miou"]
            for row in rows
            if row["ranking"].startswith("random/")
            and (row["removal"], row["stop"], row["region"]) == ("top", 12, "full")
        ]
    )
    assert point["seeds"] == len(of_seeds) == 3
    assert point["miou"] == pytest.approx(of_seeds.mean().item())
    assert point["std"] == pytest.approx(of_seeds.std().item())
    assert (point["low"], point["high"]) == pytest.approx(
        (of_seeds.min().item(), of_seeds.max().item())
    )
    alone = next(c for c in curves if c["ranking"] == "normal")
    assert (alone["seeds"], alone["std"], alone["low"]) == (1, 0.0, alone["high"])


@pytest.mark.parametrize(
    ("options", "message"),
    (
        ({"layer": "encodr"}, "layer: expected one of the network's, got 'encodr'; nearest: encod"),
        ({"rankings": {}}, "rankings: expected a mapping of one or more"),
        ({"rankings": {"a": range(23)}}, "expected a to rank the 24 channels .*, got 23"),
        ({"rankings": {"a": [0, *range(23)]}}, "expected a to hold each channel once, got 0 again"),
        ({"rankings": {"a": [24, *range(23)]}}, "a to hold channels from 0 to 23, got 24"),
        ({"rankings": {"a": [-1, *range(23)]}}, "a to hold channels from 0 to 23, got -1"),
        ({"rankings": {"a": torch.rand(24)}}, "expected a to be a ChannelRanking or channels"),
        ({"counts": [25]}, "counts: expected each once, from 0 to 24, got 25"),
        ({"counts": [3, 3]}, "counts: expected each once, from 0 to 24, got 3"),
        ({"counts": [1.5]}, "counts: expected integers, got 1.5"),
        ({"counts": (), "ranges": ()}, "counts: expected one or more where there are no ranges"),
        ({"ranges": [(3, 3)]}, "ranges: .* got \\(3, 3\\)"),
        ({"ranges": [(20, 25)]}, "ranges: .* got \\(20, 25\\)"),
        ({"ranges": [4]}, "ranges: expected pairs"),
        ({"ranges": 0}, "ranges: expected an integer of at least 1, got 0"),
        ({"regions": {"sky": (0, 0, 49, 64)}}, "regions: sky: expected .* got \\(0, 0, 49, 64\\)"),
        ({"regions": {"sky": (3, 0, 3, 64)}}, "regions: sky: expected .* got \\(3, 0, 3, 64\\)"),
        ({"regions": ["up"]}, "regions: .* got 'up'"),
        ({"num_classes": 4}, "classes"),
        ({"engine": "fast"}, "engine: expected one of auto, general, incremental, got 'fast'"),
        ({"memory": 0}, "memory: expected an integer of at least 1, got 0"),
    ),
)
def test_bad_options(net, options, message):
    with pytest.raises(InputError, match=message):
        sweep(net, batches(1), **options)


@pytest.mark.parametrize(
    ("change", "message"),
    (
        (lambda i, y: (i, y[:, 1:]), r"labels: expected the images' size, \[2, 48, 64\], got"),
        (lambda i, y: (i, y[:1]), r"labels: expected the images' size, \[2, 48, 64\], got"),
        (lambda i, y: (i, y, ["a"]), "ids: expected 2, one for each image, got 1"),
        (lambda i, y: (i, y.masked_fill(y == 2, 7)), "labels: expected classes from 0 to 4"),
        (lambda i, y: (i * float("nan"), y), "images: expected finite features at the layer"),
        (lambda i, y: (i.byte(), y), "images: expected floating point"),
        (lambda i, y: i, "batches: expected tuples"),
    ),
)
@pytest.mark.parametrize("engine", ("auto", "general"))
def test_bad_batches(net, change, message, engine):
    (images, labels, _), *_ = batches(1)
    with pytest.raises(InputError, match=message):
        sweep(net, [change(images, labels)], engine=engine)


def test_no_images(net):
    with pytest.raises(InputError, match="batches: expected one or more, got none"):
        sweep(net, [])


def test_a_forced_engine_that_cannot_run():
    with pytest.raises(InputError, match=r"engine: expected a network .* mean, which reads"):
        sweep(network("decoder"), batches(1), engine="incremental")


def test_a_network_that_yields_something_else():
    class Odd(PlainHead):
        def forward(self, images):
            return {"boxes": self.encoder(images)}

    with pytest.raises(InputError, match=r"model: expected logits .*, got NoneType"):
        sweep(Odd().eval(), batches(1))

    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.other = nn.Identity(), nn.Conv2d(3, CLASSES, 1)

        def forward(self, images):
            return self.other(images)

    with pytest.raises(
        InputError, match="layer: expected one that runs, got 'encoder', which does not"
    ):
        sweep(Unused().eval(), batches(1), {"a": range(3)}, counts=[0], ranges=())


def test_a_frame_has_a_row_for_each_point_and_region(net):
    pytest.importorskip("pandas")
    result = sweep(net, batches())
    frame = result.to_pandas()
    names = ["ranking", "removal", "start", "stop", "region", "miou"]
    assert list(frame) == names
    assert frame.to_dict("records") == [{name: row[name] for name in names} for row in result.rows]


@pytest.mark.parametrize("removal", ("top", "range"))
def test_a_drawing_has_the_mean_of_random_orders(net, removal):
    figure = pytest.importorskip("matplotlib.figure").Figure()
    rankings = random_orders(24, 2) | {"first": range(24)}
    result = sweep(net, batches(), rankings)
    axes = result.plot(figure.add_subplot(), region="left", removal=removal)
    drawn = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    place = "stop" if removal == "top" else "start"
    for name in ("random", "first"):
        assert drawn.pop(name) == [
            pytest.approx([row[place], 100 * row["miou"]])
            for row in bands(result.rows)
            if (row["ranking"], row["region"], row["removal"]) == (name, "left", removal)
        ]
    assert drawn == {}


def test_a_drawing_of_what_there_is_not_is_refused(net):
    axes = pytest.importorskip("matplotlib.figure").Figure().add_subplot()
    result = sweep(net, batches(), ranges=())
    with pytest.raises(InputError, match="region: expected one of full, left, centre, right, got"):
        result.plot(axes, region="middle")
    with pytest.raises(InputError, match="removal: expected one of top, got 'range'"):
        result.plot(axes, removal="range")
