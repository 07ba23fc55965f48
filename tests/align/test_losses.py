"""The contrastive losses: equal to open_clip's in value and gradient, masks, soft targets; tiles equal to the whole."""

import importlib.util
import os

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from align.losses import clip_loss, siglip_loss
from align.soft_targets import SoftTargets

LOSSES = {"clip": clip_loss, "siglip": siglip_loss}
NUM, WIDTH = 13, 5
CHUNKS = [0, 4, 13, 64]  # all at once; tiles with a ragged edge; one tile; one tile larger than the batch


def _batch(kind, num=NUM, dim=WIDTH, dtype=torch.float64, scale=7.0, seed=0):
    torch.manual_seed(seed)
    vectors = [F.normalize(torch.randn(num, dim, dtype=dtype), dim=1).requires_grad_() for _ in range(2)]
    scalars = [torch.tensor(value, dtype=dtype, requires_grad=True) for value in (scale, -2.0)]
    return vectors + (scalars if kind == "siglip" else scalars[:1])


def _value_and_gradients(function, batch, **options):
    loss = function(*batch, **options)
    (3 * loss).backward()  # a factor, as gradient accumulation has one
    return [loss.detach(), *(x.grad for x in batch)]


def _groups():
    """Families of two columns; person 0 belongs to nobody."""
    torch.manual_seed(1)
    groups = torch.randint(0, 6, (NUM, 2))
    groups[0] = -1
    return groups


def _mask(groups):
    """The same, pair by pair."""
    return torch.tensor([[any(a == b >= 0 for a, b in zip(i, j, strict=True)) for j in groups.tolist()] for i in groups.tolist()])  # fmt: skip


def _features(num=NUM):
    torch.manual_seed(2)
    return F.normalize(torch.randn(num, 4, dtype=torch.float64), dim=1)


def _same(ours, theirs, atol=1e-12):
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=atol, rtol=0)


@pytest.fixture(scope="module")
def open_clip_loss():
    """open_clip's loss.py by file: its package imports torchvision, the losses need torch only."""
    spec = importlib.util.find_spec("open_clip")
    if spec is None:
        pytest.skip("open_clip is not installed (make setup installs it)")
    path = os.path.join(os.path.dirname(spec.origin), "loss.py")
    loss_spec = importlib.util.spec_from_file_location("open_clip_loss", path)
    module = importlib.util.module_from_spec(loss_spec)
    loss_spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("kind", LOSSES)
def test_value_and_gradients_equal_open_clip(open_clip_loss, kind, chunk):
    theirs = {"clip": open_clip_loss.ClipLoss, "siglip": open_clip_loss.SigLipLoss}[kind]()
    ours = _value_and_gradients(LOSSES[kind], _batch(kind), chunk=chunk)
    _same(ours, _value_and_gradients(theirs, _batch(kind)))
    assert all(gradient.abs().max() > 1e-3 for gradient in ours[1:])


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("kind", LOSSES)
def test_masked_pairs_neither_push_nor_pull_and_the_diagonal_always_counts(kind, chunk):
    mask = _mask(_groups())
    assert 0.1 < mask.double().mean() < 0.9
    batch = _batch(kind)
    left, right, *scalars = (x.detach() for x in batch)
    logits = scalars[0] * left @ right.T + (scalars[1] if kind == "siglip" else 0)
    terms = []
    for i in range(NUM):  # pair by pair, from the papers' formulas
        others = [j for j in range(NUM) if j != i and not mask[i, j]]
        if kind == "clip":
            for row in (logits[i], logits[:, i]):
                terms.append((row[[i, *others]].exp().sum().log() - row[i]) / 2)
        else:
            terms.append(-torch.log(torch.sigmoid(logits[i, i])))
            terms += [-torch.log(torch.sigmoid(-logits[i, j])) for j in others]
    expected = sum(terms) / NUM
    assert LOSSES[kind](*batch, not_negative=mask, chunk=chunk).item() == pytest.approx(
        expected.item(), abs=1e-12
    )


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("kind", LOSSES)
def test_group_ids_say_the_same_as_the_mask(kind, chunk):
    by_mask = _value_and_gradients(LOSSES[kind], _batch(kind), not_negative=_mask(_groups()))
    by_groups = _value_and_gradients(LOSSES[kind], _batch(kind), not_negative=_groups(), chunk=chunk)
    _same(by_groups, by_mask)
    nobody = torch.full((NUM, 2), -1)
    assert LOSSES[kind](*_batch(kind), not_negative=nobody, chunk=chunk) == LOSSES[kind](
        *_batch(kind), chunk=chunk
    )


def test_where_nobody_is_a_negative_clip_has_nothing_to_learn():
    for chunk in CHUNKS:
        everyone = torch.ones(NUM, NUM, dtype=torch.bool)
        loss, *gradients = _value_and_gradients(clip_loss, _batch("clip"), not_negative=everyone, chunk=chunk)
        assert loss.item() == pytest.approx(0, abs=1e-12)
        assert all(gradient.abs().max() < 1e-12 for gradient in gradients)


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("masked", [False, True])
def test_soft_clip_is_the_cross_entropy_with_the_softened_targets(masked, chunk):
    features, mask = _features(), _mask(_groups()) & ~torch.eye(NUM, dtype=torch.bool)
    if not masked:
        mask[:] = False
    inside = (features @ features.T / 0.3).masked_fill(mask, -torch.inf).softmax(dim=1)
    target = 0.6 * torch.eye(NUM, dtype=torch.float64) + 0.4 * inside
    batch = _batch("clip")
    logits = (batch[2] * batch[0] @ batch[1].T).masked_fill(mask, -1e9)  # -inf x 0 would be NaN
    expected = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    (3 * expected).backward()
    soft = SoftTargets(features=features, weight=0.4, temperature=0.3)
    ours = _value_and_gradients(clip_loss, _batch("clip"), not_negative=mask, soft=soft, chunk=chunk)
    _same(ours, [expected.detach(), *(x.grad for x in batch)], atol=1e-9)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_soft_siglip_is_the_binary_cross_entropy_with_labels_by_distance(chunk):
    features, mask = _features(), _mask(_groups())
    labels = 0.4 * torch.exp(-torch.cdist(features, features).square() / (2 * 0.3))
    labels.fill_diagonal_(1)
    batch = _batch("siglip")
    logits = batch[2] * batch[0] @ batch[1].T + batch[3]
    terms = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    expected = terms[~mask | torch.eye(NUM, dtype=torch.bool)].sum() / NUM
    (3 * expected).backward()
    soft = SoftTargets(features=features, weight=0.4, temperature=0.3)
    ours = _value_and_gradients(siglip_loss, _batch("siglip"), not_negative=_groups(), soft=soft, chunk=chunk)
    _same(ours, [expected.detach(), *(x.grad for x in batch)], atol=1e-9)


@pytest.mark.parametrize("chunk", [0, 4])
@pytest.mark.parametrize("kind", LOSSES)
def test_soft_targets_come_from_features_or_from_a_matrix_and_weight_0_is_hard(kind, chunk):
    features, options = _features(), {"not_negative": _groups(), "chunk": chunk}
    by_features = SoftTargets(features=features, weight=0.3)
    by_matrix = SoftTargets(similarity=features @ features.T, weight=0.3)
    hard = SoftTargets(features=features, weight=0.0)
    results = [_value_and_gradients(LOSSES[kind], _batch(kind), soft=s, **options) for s in (by_features, by_matrix, hard, None)]  # fmt: skip
    _same(results[0], results[1])
    _same(results[2], results[3])
    assert abs(results[0][0] - results[3][0]) > 1e-3


def test_soft_targets_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="either features or a similarity matrix"):
        SoftTargets(weight=0.1)
    with pytest.raises(ValueError, match="weight 1.5"):
        SoftTargets(features=_features(), weight=1.5)


@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
@pytest.mark.parametrize("kind", LOSSES)
def test_tiles_in_float32_are_as_exact_as_the_whole(kind, scale):
    """Also at the largest scale, where logits span 200 and the worst matches matter most."""
    exact = _value_and_gradients(LOSSES[kind], _batch(kind, 200, 16, scale=scale))
    tiled = _value_and_gradients(LOSSES[kind], _batch_as_float32(kind, 200, 16, scale), chunk=32)
    for a, b in zip(tiled, exact, strict=True):
        assert a.dtype == torch.float32
        assert (a.double() - b).abs().max() <= 5e-6 * b.abs().max()


def _batch_as_float32(kind, num, dim, scale):
    return [x.detach().float().requires_grad_() for x in _batch(kind, num, dim, scale=scale)]


@pytest.mark.parametrize("kind", LOSSES)
def test_tiles_take_half_precision_and_autocast_without_losing_the_sums(kind):
    batch = [x.detach().to(torch.bfloat16).requires_grad_() for x in _batch(kind, 64)[:2]]
    scalars = [x.detach().float().requires_grad_() for x in _batch(kind, 64)[2:]]
    wide = [x.detach().double().requires_grad_() for x in (*batch, *scalars)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = LOSSES[kind](*batch, *scalars, chunk=16)
        loss.backward()
    expected = LOSSES[kind](*wide)
    expected.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for ours, exact in zip((*batch, *scalars), wide, strict=True):
        assert ours.grad.dtype == ours.dtype
        tolerance = 1e-2 if ours.dtype == torch.bfloat16 else 1e-5  # a bfloat16 gradient has 8 bits
        assert (ours.grad.double() - exact.grad).abs().max() <= tolerance * exact.grad.abs().max()


class _Largest(TorchDispatchMode):
    """Remembers the most numbers that any tensor made inside it holds."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return out


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("kind", LOSSES)
def test_tiles_never_hold_the_logits_of_all_pairs(kind, soft):
    num, dim, side = 256, 8, 32
    options = {"not_negative": torch.arange(num)[:, None] // 3}
    if soft:
        options["soft"] = SoftTargets(features=_features(num), weight=0.2)
    largest = {}
    for chunk in (0, side):
        with _Largest() as largest[chunk]:
            LOSSES[kind](*_batch(kind, num, dim), chunk=chunk, **options).backward()
    assert largest[0].numbers == num * num
    assert largest[side].numbers == max(num * dim, side * side)
