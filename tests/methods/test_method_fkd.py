"""FKD against mmrazor's values and against loops, its switches and its edges."""

from __future__ import annotations

import pytest
import torch
from support.golden import assert_close, load, value_and_grad
from support.oracles import fkd as oracle
from support.steps import SIZES, context, step

from pgd.methods import build_method
from pgd.methods.base import MethodError
from pgd.methods.fkd import ChannelTerm, FeatureTerm, NonLocal, NonLocalTerm, SpatialTerm, distance, feature_mask
from pgd.scaling import FULL, Size, published_settings

#: mmrazor's weights
TWO_STAGE = {"feature": 7e-5, "channel": 4e-3, "spatial": 4e-3, "nonlocal": 7e-5}
#: mmrazor's names of a side's modules, and ours
NON_LOCAL = {"theta.conv": "theta", "phi.0.0.conv": "phi", "g.0.0.conv": "g", "conv_out.conv": "out"}
NON_LOCAL["conv_out.bn"] = "norm"
NAMES = {
    "s.adaptation_layers": "feature.adapter",
    "s.channel_wise_adaptation": "channel.adapter",
    "s.spatial_wise_adaptation": "spatial.adapter",
    "s.non_local_adaptation": "nonlocal.adapter",
    **{f"s.student_non_local.{theirs}": f"nonlocal.student.{ours}" for theirs, ours in NON_LOCAL.items()},
    **{f"t.teacher_non_local.{theirs}": f"nonlocal.teacher.{ours}" for theirs, ours in NON_LOCAL.items()},
}


def double(tensor: torch.Tensor):
    return tensor.detach().double().numpy()


def parameters_of(terms: torch.nn.ModuleDict, level: int | None = None) -> dict:
    """By their names without the level, for the oracle."""
    if level is not None:
        terms = torch.nn.ModuleDict({name: levels[level] for name, levels in terms.items()})
    return {name: double(value) for name, value in terms.state_dict().items()}


def released_level(case: int) -> tuple[dict, torch.nn.ModuleDict]:
    """The arrays of a case, and mmrazor's level with its parameters in our modules."""
    meta, a = load(f"fkd_{case}")
    channels = a["student"].size(1)
    terms = torch.nn.ModuleDict(
        {
            "feature": FeatureTerm(channels, channels, temperature=0.5, channel_mask=False),
            "channel": ChannelTerm(channels, channels),
            "spatial": SpatialTerm(),
            "nonlocal": NonLocalTerm(channels, channels, meta["reduction"], 2 * meta["maxpool_stride"]),
        }
    )
    state = {}
    for name, value in a.items():
        if name.startswith("param_"):
            module, kind = name.removeprefix("param_").replace("__", ".").replace("_", ".", 1).rsplit(".", 1)
            state[f"{NAMES[module]}.{kind}"] = value
    terms.load_state_dict(state)
    return a, terms


def total(terms: torch.nn.ModuleDict, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    return sum(TWO_STAGE[name] * term(student, teacher) for name, term in terms.items())


@pytest.mark.parametrize("case", [0, 1])
def test_released_value_and_gradient(case):
    a, terms = released_level(case)
    value, grad = value_and_grad(lambda s: total(terms, s, a["teacher"]), a["student"])
    torch.testing.assert_close(value.double(), a["loss"].double(), rtol=1e-5, atol=0)
    scale = a["grad"].abs().max()
    assert_close(grad / scale, a["grad"] / scale)


@pytest.mark.parametrize("case", [0, 1])
def test_method_in_the_released_form(case, monkeypatch):
    """The whole method on two equal levels, with the settings of mmrazor."""
    a, terms = released_level(case)
    monkeypatch.setattr("pgd.methods.fkd.NON_LOCAL", ())
    weights = {f"weight_{name}": weight for name, weight in TWO_STAGE.items()}
    widths = dict.fromkeys(("student_channels", "teacher_channels"), a["student"].size(1))
    switches = {"temperature": 0.5, "channel_mask": False, "double_pooling": True}
    method = build_method("fkd", context(**widths), **weights, **switches)
    for name, levels in method.terms.items():
        for level in levels:
            level.load_state_dict(terms[name].state_dict())
    given = step()
    given.student.neck, given.teacher.neck = [a["student"]] * 2, [a["teacher"]] * 2
    torch.testing.assert_close(sum(method(given).values()).double(), 2 * a["loss"].double(), rtol=1e-5, atol=0)


def stirred(method):
    """Batch norms that are not zero, so that the non-local blocks matter."""
    for name, parameter in method.named_parameters():
        if ".norm." in name:
            torch.nn.init.normal_(parameter)
    return method


@pytest.mark.parametrize(
    ("seed", "channel_mask", "double_pooling"), [(0, True, False), (1, False, False), (2, True, True)]
)
def test_method_by_loops(seed, channel_mask, double_pooling):
    torch.manual_seed(seed)
    given = step(seed=seed)
    settings = {"weight": 100.0, "temperature": 0.3, "channel_mask": channel_mask, "double_pooling": double_pooling}
    method = stirred(build_method("fkd", context(), **settings))
    expected = dict.fromkeys(method.terms, 0.0)
    for level, (student, teacher) in enumerate(zip(given.student.neck, given.teacher.neck, strict=True)):
        pooling = (8, 4)[level] * (2 if double_pooling else 1)
        steps = [min(pooling, side) for side in SIZES[level]]
        own = parameters_of(method.terms, level)
        values = oracle.fkd(double(student), double(teacher), own, steps, 0.3, channel_mask)
        expected = {name: expected[name] + value for name, value in values.items()}
    weights = {"feature": 4.2e-4, "channel": 2.4e-2, "spatial": 2.4e-2, "nonlocal": 4.2e-4}
    terms = method(given)
    assert terms.keys() == {f"loss_fkd_{name}" for name in weights}
    for name, weight in weights.items():
        assert terms[f"loss_fkd_{name}"].item() == pytest.approx(100 * weight * expected[name], rel=1e-5)


@pytest.mark.parametrize(("pooling", "size"), [(2, (5, 7)), (3, (5, 7)), (8, (4, 9)), (1, (3, 3))])
def test_non_local_by_loops(pooling, size):
    """Against the form with a matrix of positions by keys; windows that do not fit at the borders are dropped."""
    torch.manual_seed(0)
    block = stirred(torch.nn.ModuleDict({"nonlocal": NonLocal(6, 2, pooling)}))["nonlocal"]
    torch.nn.init.normal_(block.norm.weight)
    features = torch.randn(2, 6, *size)
    own = {f"r.{name}": double(value) for name, value in block.state_dict().items()}
    expected = oracle.non_local(double(features), own, "r", [min(pooling, side) for side in size])
    torch.testing.assert_close(block(features).double(), torch.from_numpy(expected), rtol=1e-4, atol=1e-5)


def test_non_local_starts_as_the_identity():
    features = torch.randn(2, 8, 6, 5)
    assert torch.equal(NonLocal(8, 2, 2)(features), features)


def test_non_local_on_a_single_value_takes_running_statistics():
    block = NonLocal(8, 2, 2)
    torch.nn.init.ones_(block.norm.weight)
    features = torch.randn(1, 8, 1, 1)
    before = block.norm.running_mean.clone()
    out = block(features)
    assert bool(out.isfinite().all())
    assert not torch.equal(out, features)
    assert torch.equal(block.norm.running_mean, before)
    torch.testing.assert_close(block.eval()(features), out)


def naive_non_local(features: torch.Tensor, p: dict, prefix: str, pooling: int) -> torch.Tensor:
    own = {name.removeprefix(prefix): value for name, value in p.items() if name.startswith(prefix)}
    query = torch.conv2d(features, own["theta.weight"], own["theta.bias"])
    key, value = (
        torch.nn.functional.max_pool2d(torch.conv2d(features, own[f"{name}.weight"], own[f"{name}.bias"]), pooling)
        for name in ("phi", "g")
    )
    mixed = torch.zeros_like(query)
    for n, y, x in [(n, y, x) for n in range(2) for y in range(query.size(2)) for x in range(query.size(3))]:
        likeness = (query[n, :, y, x, None] * key[n].flatten(1)).sum(dim=0) / key[n, 0].numel()
        mixed[n, :, y, x] = (likeness * value[n].flatten(1)).sum(dim=1)
    out = torch.conv2d(mixed, own["out.weight"])
    mean, variance = out.mean(dim=(0, 2, 3), keepdim=True), out.var(dim=(0, 2, 3), correction=0, keepdim=True)
    out = (out - mean) / (variance + 1e-5).sqrt()
    return features + out * own["norm.weight"][:, None, None] + own["norm.bias"][:, None, None]


def naive_term(name: str, student: torch.Tensor, teacher: torch.Tensor, p: dict) -> torch.Tensor:
    """A term in float64 from plain operations."""
    weight, bias = p["adapter.weight"], p["adapter.bias"]
    if name == "feature":
        mask = feature_mask(student, teacher, 0.5).double()
        return (mask * (torch.conv2d(student, weight, bias) - teacher) ** 2).sum().sqrt()
    if name == "channel":
        return ((student.mean(dim=(2, 3)) @ weight.T + bias - teacher.mean(dim=(2, 3))) ** 2).sum().sqrt()
    if name == "spatial":
        student, teacher = student.mean(dim=1, keepdim=True), teacher.mean(dim=1, keepdim=True)
        return ((torch.conv2d(student, weight, bias, padding=1) - teacher) ** 2).sum().sqrt()
    related = torch.conv2d(naive_non_local(student, p, "student.", 2), weight, bias)
    return ((related - naive_non_local(teacher, p, "teacher.", 2)) ** 2).sum().sqrt()


@pytest.mark.parametrize("name", ["feature", "channel", "spatial", "nonlocal"])
def test_gradients_of_student_and_adapters(name):
    """Against autograd of a naive form in float64."""
    torch.manual_seed(0)
    terms = {"feature": FeatureTerm(4, 4, 0.5, True), "channel": ChannelTerm(4, 4), "spatial": SpatialTerm()}
    term = stirred({**terms, "nonlocal": NonLocalTerm(4, 4, 2, 2)}[name])
    student, teacher = torch.randn(2, 4, 4, 6, requires_grad=True), torch.randn(2, 4, 4, 6)
    parameters = {key: value.detach().double().requires_grad_() for key, value in term.named_parameters()}
    leaf = student.detach().double().requires_grad_()
    expected = naive_term(name, leaf, teacher.double(), parameters)
    actual = term(student, teacher)
    torch.testing.assert_close(actual, expected.float())
    gradients = torch.autograd.grad(actual, (student, *term.parameters()))
    for mine, plain in zip(gradients, torch.autograd.grad(expected, (leaf, *parameters.values())), strict=True):
        torch.testing.assert_close(mine, plain.float(), rtol=1e-4, atol=1e-5)


def test_mask_by_hand():
    # Mean magnitudes 0 and log 2 of the two positions, equal ones of the two channels; the teacher is flat.
    student = torch.tensor([1.0, 2.0]).log().expand(1, 2, 1, 2)
    teacher = torch.zeros(1, 2, 1, 2)
    mask = feature_mask(student, teacher, 1.0)
    # A(p) = 2 (1/3, 2/3), its mean with (1, 1); A(c) = (1, 1).
    torch.testing.assert_close(mask, torch.tensor([5 / 6, 7 / 6]).expand(1, 2, 1, 2))
    assert feature_mask(student, teacher, 1.0, channel_mask=False).shape == (1, 1, 1, 2)


def test_mask_takes_no_gradient():
    student = torch.randn(1, 3, 4, 4, requires_grad=True)
    assert not feature_mask(student, torch.randn(1, 3, 4, 4), 0.5).requires_grad


def test_roots_grow_with_the_root_of_the_batch():
    term = FeatureTerm(4, 4, 0.1, True)
    student, teacher = torch.randn(1, 4, 5, 5), torch.randn(1, 4, 5, 5)
    twice = term(student.repeat(2, 1, 1, 1), teacher.repeat(2, 1, 1, 1))
    torch.testing.assert_close(twice, 2**0.5 * term(student, teacher))


def test_equal_features_have_a_gradient_of_zeros():
    features = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = distance(features, features.detach(), torch.zeros(2, 1, 4, 4))
    loss.backward()
    assert loss == 0
    assert not features.grad.any()


def test_widths_are_bridged():
    ctx = context(student_channels=5)
    method, given = stirred(build_method("fkd", ctx)), step(ctx=ctx)
    terms = method(given)
    feature = method.terms["feature"]
    expected = 0.0
    for term, student, teacher in zip(feature, given.student.neck, given.teacher.neck, strict=True):
        adapted = term.adapter(student)
        channels = sum(oracle.attention(double(f), 0.1)[1] for f in (adapted, teacher)) / 2
        places = sum(oracle.attention(double(f), 0.1)[0] for f in (student, teacher)) / 2
        mask = places[:, None] * channels[:, :, None, None]
        expected += (mask * double(adapted - teacher) ** 2).sum() ** 0.5
    assert terms["loss_fkd_feature"].item() == pytest.approx(4.2e-4 * expected, rel=1e-5)
    sum(terms.values()).backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in method.parameters())
    assert all(f.grad.any() for f in given.student.neck)


def test_a_weight_of_zero_leaves_a_term_and_its_adapters_out():
    method = build_method("fkd", context(), weight_nonlocal=0.0, weight_feature=0.0)
    assert set(method(step())) == {"loss_fkd_channel", "loss_fkd_spatial"}
    assert {name.split(".")[1] for name, _ in method.named_parameters()} == {"channel", "spatial"}


def test_inner_widths_and_pooling_of_levels():
    ctx = context(student_channels=16, teacher_channels=16, num_levels=4, strides=(8, 16, 32, 64))
    blocks = [term.teacher for term in build_method("fkd", ctx).terms["nonlocal"]]
    assert [(block.theta.out_channels, block.pooling) for block in blocks] == [(4, 8), (4, 4), (8, 2), (8, 2)]
    blocks = [term.student for term in build_method("fkd", ctx, double_pooling=True).terms["nonlocal"]]
    assert [block.pooling for block in blocks] == [16, 8, 4, 4]


def test_weights_go_with_the_roots_of_channels_and_positions():
    size = Size(FULL.channels // 4, FULL.positions // 25, FULL.cells, FULL.blocks, FULL.warmup)
    settings = published_settings("fkd", "gfl", size)
    assert settings["weight_feature"] == settings["weight_nonlocal"] == pytest.approx(4.2e-3)
    assert settings["weight_channel"] == pytest.approx(4.8e-2)
    assert settings["weight_spatial"] == pytest.approx(0.12)


def test_errors():
    with pytest.raises(MethodError, match="above 0"):
        build_method("fkd", context(), temperature=0.0)


def test_half_precision_has_roots_in_single():
    student, teacher = (torch.randn(2, 16, 40, 40).bfloat16() for _ in range(2))
    torch.testing.assert_close(distance(student, teacher), distance(student.float(), teacher.float()))
    given, method = step(), stirred(build_method("fkd", context()))
    with torch.autocast("cpu", torch.bfloat16):
        terms = method(given)
    assert all(term.dtype == torch.float32 and bool(term.isfinite()) for term in terms.values())
