"""The AugShift loss against Equation 1 written out, and in the ways that people train with it."""

import copy

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import gpe
from gpe import fused_augshift_loss
from gpe.errors import InputError
from tests.conftest import TOLERANCE

COUNT, CHANNELS, CLASSES = 6, 5, 4
INDICES = torch.tensor([3, 0, 1, 1, 2, 0])


def sample(device="cpu", *, dtype=torch.float64, latents=False):
    """Features of both crops, stacked, that require a gradient."""
    shape = (2 * COUNT, CHANNELS) if latents else (2 * COUNT, CHANNELS, 3, 4)
    features = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return features.to(device, dtype).requires_grad_()


def probabilities():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(COUNT, CLASSES, generator=generator, dtype=torch.float64).softmax(1)


def linear(device="cpu", dtype=torch.float64):
    torch.manual_seed(2)
    return nn.Linear(CHANNELS, CLASSES).to(device, dtype)


def equation_1(features, head, target, *, weight, label_smoothing=0.0):
    """(loss, logits_a, logits_b, cross_entropy_a, cross_entropy_b, mse), as it is written."""
    z = features.mean((2, 3)) if features.dim() == 4 else features
    z_a, z_b = z[:COUNT], z[COUNT:]
    logits = head(z)
    if target.dim() == 1:
        target = torch.eye(logits.shape[1], dtype=logits.dtype, device=logits.device)[target]
    target = (1 - label_smoothing) * target + label_smoothing / logits.shape[1]
    logits_a, logits_b = logits[:COUNT], logits[COUNT:]
    l1, l2 = (-(target * half.log_softmax(1)).sum(1).mean() for half in (logits_a, logits_b))
    mse = ((z_a - z_b) ** 2).sum() / (COUNT * CHANNELS)
    return l1 + l2 + weight * mse, logits_a, logits_b, l1, l2, mse


def assert_close(got, expected, dtype=torch.float64):
    rtol, atol = TOLERANCE[dtype]
    torch.testing.assert_close(got, expected, rtol=rtol, atol=atol, check_dtype=False)


class Network(nn.Module):
    """Small, without batch norm: the images of a batch do not see each other."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, CHANNELS, 3))
        self.head = nn.Linear(CHANNELS, CLASSES)

    def forward(self, crops, target):
        return fused_augshift_loss(self.backbone(crops), None, self.head, target, weight=2.0)


def crops_and_target(device="cpu", dtype=torch.float64):
    crops = torch.rand(2, COUNT, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    return crops.to(device, dtype), INDICES.to(device)


def gradients(module):
    return [parameter.grad for parameter in module.parameters()]


# Values and gradients


@pytest.mark.parametrize("label_smoothing", (0.0, 0.1, 1.0))
@pytest.mark.parametrize("weight", (0, 2.5))
@pytest.mark.parametrize("target", (INDICES, probabilities()), ids=("indices", "probabilities"))
@pytest.mark.parametrize("stacked", (True, False), ids=("stacked", "separate"))
@pytest.mark.parametrize("latents", (True, False), ids=("latents", "maps"))
def test_is_equation_1_and_so_is_its_gradient(
    latents, stacked, target, weight, label_smoothing, device
):
    target = target.to(device)
    options = {"weight": weight, "label_smoothing": label_smoothing}
    features, head = sample(device, latents=latents), linear(device)
    halves = (features, None) if stacked else features.split(COUNT)
    result = fused_augshift_loss(*halves, head, target, **options)
    right_features, right_head = sample(device, latents=latents), linear(device)
    expected = equation_1(right_features, right_head, target, **options)
    assert result._fields == (
        *("loss", "logits_a", "logits_b", "cross_entropy_a", "cross_entropy_b", "mse"),
    )
    assert_close(tuple(result), expected)

    result.loss.backward()
    expected[0].backward()
    assert_close(features.grad, right_features.grad)
    assert_close(gradients(head), gradients(right_head))


def test_defaults_are_weight_1_and_no_smoothing(device):
    target = INDICES.to(device)
    result = fused_augshift_loss(sample(device), None, linear(device), target)
    assert_close(tuple(result), equation_1(sample(device), linear(device), target, weight=1))


@pytest.mark.parametrize("latents", (True, False), ids=("latents", "maps"))
def test_gradcheck(latents, device):
    """Of every output, not only of the loss."""
    head = linear(device)

    def outputs(features, matrix):
        def by_matrix(z):
            return nn.functional.linear(z, matrix, head.bias)

        return tuple(fused_augshift_loss(features, None, by_matrix, INDICES.to(device), weight=2.0))

    assert torch.autograd.gradcheck(outputs, (sample(device, latents=latents), head.weight))


@pytest.mark.parametrize(
    "target", (INDICES, probabilities().float()), ids=("indices", "probabilities")
)
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16, torch.float16))
def test_loss_is_float32_whatever_the_features_are(dtype, target, device):
    """What comes after the logits and latents is as exact as float32, not as they are."""
    features, target = sample(device, dtype=dtype), target.to(device)
    result = fused_augshift_loss(features, None, linear(device, dtype), target, weight=2.0)
    assert result.logits_a.dtype == result.logits_b.dtype == dtype
    exact = features.double(), linear(device, dtype).double(), target
    assert_close(tuple(result)[1:3], equation_1(*exact, weight=2.0)[1:3], dtype)
    assert result.mse.dtype == torch.float32
    assert_close(result.mse, equation_1(*exact, weight=2.0)[-1], torch.float32)
    for logits, cross_entropy in zip(result[1:3], result[3:5], strict=True):
        assert cross_entropy.dtype == torch.float32
        expected = nn.functional.cross_entropy(logits.double(), target)
        assert_close(cross_entropy, expected, torch.float32)
    assert result.loss.dtype == torch.float32
    assert_close(result.loss, sum(result[3:5]) + 2.0 * result.mse, torch.float32)
    result.loss.backward()
    assert features.grad.dtype == dtype
    assert features.grad.isfinite().all()


def test_a_relative_loss_is_that_of_latents_of_unit_variance(device):
    """Smaller latents do not make it smaller; the MSE that comes back is the plain one."""
    features = sample(device)
    with torch.no_grad():
        features -= features.mean((0, 2, 3), keepdim=True)

    def distance(scale):
        result = fused_augshift_loss(
            scale * features, None, linear(device), INDICES.to(device), weight=3.0, relative=True
        )
        cross_entropies = result.cross_entropy_a + result.cross_entropy_b
        return (result.loss - cross_entropies) / 3.0, result.mse

    z = features.mean((2, 3))
    expected = equation_1(features, linear(device), INDICES.to(device), weight=0.0)[-1]
    found, mse = distance(1.0)
    assert_close(found, expected / z.pow(2).mean())
    assert_close(mse, expected)
    assert_close(distance(0.01)[0], found, dtype=torch.float32)


def test_the_one_process_is_all_processes():
    """As in a script that torchrun did not start."""
    features, head = sample("cpu"), linear()
    alone, all_of_them = (
        fused_augshift_loss(features, None, head, INDICES, relative=True, all_processes=given).loss
        for given in (False, True)
    )
    assert torch.equal(alone, all_of_them)


def test_the_gradient_of_a_relative_loss():
    head = linear()

    def loss(features):
        return fused_augshift_loss(features, None, head, INDICES, weight=3.0, relative=True).loss

    assert torch.autograd.gradcheck(loss, (sample(),))


def test_a_relative_loss_where_all_latents_are_one():
    """No variance, and no difference: nothing, not NaN."""
    features = torch.ones(2 * COUNT, CHANNELS, 3, 4, dtype=torch.float64, requires_grad=True)
    result = fused_augshift_loss(features, None, linear(), INDICES, relative=True)
    result.loss.backward()
    assert result.loss == result.cross_entropy_a + result.cross_entropy_b
    assert features.grad.isfinite().all()


# Heads


def test_head_may_be_a_function(device):
    head, target = linear(device), INDICES.to(device)
    plain = fused_augshift_loss(sample(device), None, lambda z: z @ head.weight.T, target)
    expected = equation_1(sample(device), lambda z: z @ head.weight.T, target, weight=1)
    assert_close(tuple(plain), expected)


def test_head_with_dropout_and_batch_norm_is_called_once_on_both_crops(device):
    head = nn.Sequential(nn.BatchNorm1d(CHANNELS), nn.Dropout(0.5), linear())
    heads = [copy.deepcopy(head).to(device, torch.float64) for _ in range(2)]
    target = INDICES.to(device)
    torch.manual_seed(0)
    result = fused_augshift_loss(sample(device), None, heads[0], target)
    torch.manual_seed(0)
    assert_close(tuple(result), equation_1(sample(device), heads[1], target, weight=1))
    assert heads[0][0].num_batches_tracked == 1
    assert_close(heads[0][0].running_var, heads[1][0].running_var)


# In a training loop


def test_autocast(device):
    """Features and logits in bfloat16, the loss in float32, gradients near those of float32."""
    network, exact = Network().to(device), Network().to(device)
    crops, target = crops_and_target(device, torch.float32)
    with torch.autocast(device, torch.bfloat16):
        result = network(crops.flatten(0, 1), target)
    expected = exact(crops.flatten(0, 1), target)
    assert result.logits_a.dtype == torch.bfloat16
    assert all(value.dtype == torch.float32 for value in (result.loss, *result[3:]))
    # Weights, features and logits are all rounded to 8 bits.
    torch.testing.assert_close(result.loss, expected.loss, rtol=0.02, atol=0)
    result.loss.backward()
    expected.loss.backward()
    for got, right in zip(gradients(network), gradients(exact), strict=True):
        assert nn.functional.cosine_similarity(got.flatten(), right.flatten(), dim=0) > 0.99


@pytest.mark.parametrize(("compiler", "mixed"), (("aot_eager", True), ("inductor", False)))
def test_compile_fullgraph(compiler, mixed, device):
    """The whole network, the loss and its gradient, in one graph."""
    network, exact = Network().to(device), Network().to(device)
    compiled = torch.compile(network, fullgraph=True, backend=compiler)
    crops, target = crops_and_target(device, torch.float32)
    results = []
    for net in (compiled, exact):
        with torch.autocast(device, torch.bfloat16, enabled=mixed):
            results.append(net(crops.flatten(0, 1), target))
        results[-1].loss.backward()
    # Fused, it is rounded at other places.
    tolerance = {"rtol": 0.02, "atol": 0.02} if mixed else {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(*map(tuple, results), **tolerance)
    torch.testing.assert_close(gradients(network), gradients(exact), **tolerance)


def test_compiled_code_leaves_no_target_out():
    """As torch's cross entropy does with -100."""
    compiled = torch.compile(fused_augshift_loss, fullgraph=True, backend="aot_eager")
    with pytest.raises(InputError, match="target: expected classes from 0 to 3"):
        compiled(sample(), None, linear(), INDICES.clone().fill_(-100))


def test_fake_tensors():
    with FakeTensorMode():
        result = fused_augshift_loss(torch.rand(4, 5, 3, 3), None, nn.Linear(5, 7), torch.arange(2))
    assert result.logits_a.shape == (2, 7)
    assert result.loss.shape == ()


def test_gradients_accumulate(device):
    """Those of two halves of a batch, each with half the loss, add up to those of the batch."""
    network, whole = Network().to(device).double(), Network().to(device).double()
    crops, target = crops_and_target(device)
    for half in (slice(0, COUNT // 2), slice(COUNT // 2, COUNT)):
        (network(crops[:, half].flatten(0, 1), target[half]).loss / 2).backward()
    whole(crops.flatten(0, 1), target).loss.backward()
    assert_close(gradients(network), gradients(whole))


def test_activation_checkpointing(device):
    network, plain = Network().to(device).double(), Network().to(device).double()
    crops, target = crops_and_target(device)
    features = checkpoint(network.backbone, crops.flatten(0, 1), use_reentrant=False)
    fused_augshift_loss(features, None, network.head, target, weight=2.0).loss.backward()
    plain(crops.flatten(0, 1), target).loss.backward()
    assert_close(gradients(network), gradients(plain))


def test_two_processes_get_the_gradients_of_one(tmp_path):
    """DistributedDataParallel averages over both: that is the mean over the images of both."""
    network = Network().double()
    crops, target = crops_and_target()
    network(crops.flatten(0, 1), target).loss.backward()
    # To fork would be quicker, but autograd that has threads does not outlive it.
    torch.multiprocessing.spawn(one_of_two, args=(tmp_path,), nprocs=2)
    for rank in range(2):
        assert_close(torch.load(tmp_path / f"{rank}.pt"), gradients(network))


def one_of_two(rank, folder):
    torch.set_num_threads(1)
    meet = f"file://{folder}/meet"
    torch.distributed.init_process_group("gloo", init_method=meet, rank=rank, world_size=2)
    network = DistributedDataParallel(Network().double())
    crops, target = crops_and_target()
    network(crops[:, rank::2].flatten(0, 1), target[rank::2]).loss.backward()
    torch.save(gradients(network), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


# Errors


NAN = sample().detach().index_fill(1, torch.tensor(2), float("nan"))


@pytest.mark.parametrize(
    ("change", "message"),
    (
        ({"weight": -1}, r"weight: expected a finite number of at least 0, got -1"),
        ({"weight": float("nan")}, r"weight: expected a finite .*, got nan"),
        ({"weight": float("inf")}, r"weight: expected a finite .*, got inf"),
        ({"label_smoothing": -0.1}, r"label_smoothing: expected 0 to 1, got -0.1"),
        ({"label_smoothing": 1.5}, r"label_smoothing: expected 0 to 1, got 1.5"),
        ({"features_b": sample()[:COUNT]}, r"features_b: expected the shape of features_a, .*"),
        ({"features_b": sample().float()}, r"features_b: expected the dtype of features_a, .*"),
        ({"features_a": sample()[:7]}, r"features_a: expected an even number .*, got 7"),
        ({"features_a": sample()[0]}, r"features_a: expected shape \[N,C,H,W\], got \[5, 3, 4\]"),
        ({"features_a": sample().long()}, r"features_a: expected floating point, got torch.int64"),
        ({"features_a": sample(latents=True).int()}, r"features_a: expected floating point, .*"),
        ({"features_a": NAN}, r"features_a: expected finite .*nan in image 0, channel 2"),
        ({"features_a": NAN.mean((2, 3))}, r"features_a: expected finite .*image 0, channel 2"),
        ({"head": lambda z: z.sum(1)}, r"head: expected to yield logits \[12,K\], got \[12\]"),
        ({"head": lambda z: z.mean(0, True)}, r"head: expected to .* \[12,K\], got \[1, 5\]"),
        ({"head": lambda z: (z, z)}, r"head: expected to yield logits \[12,K\], got tuple"),
        (
            {"target": INDICES[:5]},
            r"target: expected torch.int64 \[6\], or probabilities \[6,4\], got torch.int64 \[5\]",
        ),
        ({"target": INDICES.repeat(2)}, r"target: expected torch.int64 \[6\], .*int64 \[12\]"),
        ({"target": INDICES[:, None]}, r"target: expected .*, got torch.int64 \[6, 1\]"),
        ({"target": INDICES.int()}, r"target: expected .*, got torch.int32 \[6\]"),
        ({"target": INDICES.double()}, r"target: expected .*, got torch.float64 \[6\]"),
        ({"target": probabilities()[:, 1:]}, r"target: expected .*, got torch.float64 \[6, 3\]"),
        ({"target": probabilities() > 0}, r"target: expected .*, got torch.bool \[6, 4\]"),
        ({"target": INDICES + 1}, r"target: expected classes from 0 to 3, got 4 at index 0"),
        ({"target": INDICES - 1}, r"target: expected classes from 0 to 3, got -1 at index 1"),
        ({"target": INDICES.clone().fill_(-100)}, r"target: .* 0 to 3, got -100 at index 0"),
        ({"target": INDICES.to("meta")}, r"target: expected the device .* cpu, got meta"),
    ),
)
def test_errors(change, message):
    given = {"features_a": sample(), "features_b": None, "head": linear(), "target": INDICES}
    with pytest.raises(InputError, match=f"^{message}$"):
        gpe.fused_augshift_loss(**given | change)


def test_features_with_infinities_are_told_by_name():
    """They pool to infinity, and their difference to NaN."""
    infinite = torch.full((COUNT, CHANNELS, 3, 4), float("inf"), dtype=torch.float64)
    with pytest.raises(InputError, match="features_a: expected finite values, got a mean of inf"):
        fused_augshift_loss(infinite, infinite, linear(), INDICES)
