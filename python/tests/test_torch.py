"""A plan applied to real PyTorch modules."""

import copy
import gc
import io
import warnings
import weakref

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

torch.set_num_threads(1)

import nets  # noqa: E402

import freeze_plan  # noqa: E402
from freeze_plan.torch import Freezer, freezer  # noqa: E402

# Freezes in epochs 2 to 4: 3, 6 and 9 of 13 units.
LINEAR = {"epochs": nets.EPOCHS, "freeze_start": 0.0}


@pytest.fixture
def plan(digits):
    plan = freeze_plan.plan(digits, **LINEAR)
    assert [epoch.frozen_units for epoch in plan] == [0, 3, 6, 9]
    return plan


def held(optimizer):
    return {id(own) for group in optimizer.param_groups for own in group["params"]}


@pytest.mark.parametrize("make", [nets.sgd, nets.adam])
def test_training_is_that_of_a_loop_by_hand(plan, make):
    expected, losses = nets.by_hand(plan, make)
    model = nets.digits()
    optimizer = make(model)
    seen = []
    for epoch in range(1, nets.EPOCHS + 1):
        model.train()
        entry = plan.apply(model, optimizer, epoch)
        before = nets.values(model)
        seen += [nets.step(model, optimizer, batch) for batch in nets.batches()]
        after = nets.values(model)
        for name, parameter in model.named_parameters():
            frozen = name in entry.frozen
            assert parameter.requires_grad is not frozen
            assert (parameter.grad is None) is frozen
            assert (id(parameter) in held(optimizer)) is not frozen
            assert (parameter in optimizer.state) is not frozen
            assert torch.equal(before[name], after[name]) is frozen, name
    assert seen == losses
    for name, value in nets.values(expected).items():
        assert torch.equal(value, model.state_dict()[name]), name


def test_what_freezes_can_train_again(digits):
    steps = [{"epoch": 2, "frozen": 4}, {"epoch": 3, "frozen": 2}, {"epoch": 4, "frozen": 0}]
    plan = freeze_plan.plan(digits, 4, policy="steps", on_return="reset", steps=steps)
    model = nets.digits()
    optimizer = nets.adam(model)
    order = [id(own) for own in optimizer.param_groups[0]["params"]]
    for epoch in range(1, 5):
        plan.apply(model, optimizer, epoch)
        for batch in nets.batches():
            nets.step(model, optimizer, batch)
    assert [id(own) for own in optimizer.param_groups[0]["params"]] == order
    counts = [int(optimizer.state[own]["step"]) for own in model.parameters()]
    # Unit 0 was away in epochs 2 and 3, unit 3 in epoch 2; the last one never.
    assert (counts[0], counts[4], counts[-1]) == (nets.STEPS, 2 * nets.STEPS, 4 * nets.STEPS)


@pytest.mark.parametrize("on_return", ["reset", "keep", "warm-up"])
def test_on_return_says_what_becomes_of_slots(digits, on_return):
    plan = freeze_plan.plan(
        digits, 3, policy="steps", on_return=on_return, warm_up_steps=4, steps="2:2,3:0"
    )
    model = nets.digits()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    first = model.conv1.weight
    moved = []
    for epoch in range(1, 4):
        plan.apply(model, optimizer, epoch)
        before = first.detach().clone()
        if epoch == 2:
            assert first not in optimizer.state
        if epoch == 3:
            slots = optimizer.state.get(first, {}).get("momentum_buffer")
            assert (slots is not None and torch.equal(slots, kept)) if on_return == "keep" else slots is None
        for batch in nets.batches()[:1]:
            nets.step(model, optimizer, batch)
        moved.append((first.detach() - before) / -0.5)
        if epoch == 1:
            kept = optimizer.state[first]["momentum_buffer"].clone()
    assert not moved[1].any()
    wanted = {"reset": first.grad, "keep": first.grad + 0.9 * kept, "warm-up": first.grad / 4}[on_return]
    torch.testing.assert_close(moved[2], wanted, rtol=1e-4, atol=1e-6)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5]


def test_rates_are_scaled_within_a_step_only(digits):
    plan = freeze_plan.plan(digits, 4, policy="thaw", decay=2.0)
    entry = next(entry for entry in plan if entry.lr_scale)
    model = nets.digits()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 1.0)
    plan.apply(model, optimizer, entry.epoch)
    before = nets.values(model)
    nets.step(model, optimizer, nets.batches()[0])
    for name, own in model.named_parameters():
        if name not in entry.frozen:
            moved = before[name] - own.detach()
            torch.testing.assert_close(moved, 0.5 * entry.lr_scale.get(name, 1.0) * own.grad, rtol=1e-4, atol=1e-6)
    schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.5]
    assert len(entry.lr_scale) > 0 and min(entry.lr_scale.values()) < 1


@pytest.mark.parametrize("batch_norm", ["train", "frozen"])
def test_batch_norm_is_as_the_plan_says(digits, batch_norm):
    plan = freeze_plan.plan(digits, 2, freeze=["bn1", "block1.bn1"], policy="none", batch_norm=batch_norm)
    model = nets.digits()
    optimizer = nets.sgd(model)
    plan.apply(model, optimizer, 1)
    model.train()
    before = nets.values(model)
    nets.step(model, optimizer, nets.batches()[0])
    still = torch.equal(before["bn1.running_mean"], model.bn1.running_mean)
    assert still is (batch_norm == "frozen")
    assert not torch.equal(before["bn2.running_mean"], model.bn2.running_mean)
    assert torch.equal(before["bn1.weight"], model.bn1.weight)
    Freezer(freeze_plan.plan(digits, 1, policy="none"), model).apply(1)


def test_statistics_move_again_when_the_plan_lets_them(digits):
    plan = freeze_plan.plan(digits, 2, policy="steps", batch_norm="frozen", steps="1:2,2:0")
    model = nets.digits().train()
    optimizer = nets.sgd(model)
    moved = []
    for epoch in (1, 2):
        plan.apply(model, optimizer, epoch)
        before = model.bn1.running_mean.clone()
        nets.step(model, optimizer, nets.batches()[0])
        moved.append(not torch.equal(before, model.bn1.running_mean))
    assert moved == [False, True] and model.bn1.training


@pytest.mark.parametrize("own", [True, False])
def test_a_module_goes_back_to_the_mode_of_the_whole(digits, own):
    plan = freeze_plan.plan(digits, 2, policy="steps", batch_norm="frozen", steps="1:2,2:0")
    model = nets.digits().eval()
    if not own:
        model.bn1.train()
    plan.apply(model, None, 1)
    model.train()
    plan.apply(model, None, 2)
    assert model.bn1.training
    model.bn1.eval()
    plan.apply(model, None, 1)
    plan.apply(model, None, 2)
    assert not model.bn1.training, "somebody else keeps it so"


def test_what_others_switch_on_is_frozen_again(plan):
    model = nets.digits()
    for _ in range(2):
        plan.apply(model, None, 4)
        assert {name for name, own in model.named_parameters() if not own.requires_grad} == plan.frozen(4)
        model.requires_grad_(True)


def test_parameters_that_the_plan_does_not_know_are_told(plan):
    model = nets.digits()
    model.extra = torch.nn.Linear(2, 2)
    with pytest.warns(UserWarning, match="2 parameters of the model, which always train: extra.weight, extra.bias"):
        plan.apply(model, None, 4)
    model = nets.digits()
    model.extra = torch.nn.Linear(2, 2).requires_grad_(False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan.apply(model, None, 4)


def test_other_names_take_over(plan):
    model = nets.digits()
    plan.apply(model, None, 2)
    swapped = {"conv1.weight": "conv1.weight", "fc.bias": "fc.bias"}
    first = freezer(plan, model)
    assert freezer(plan, model, names=swapped) is not first and freezer(plan, model, names=swapped).names == swapped


def test_what_is_no_module_or_optimizer_is_told(plan):
    with pytest.raises(freeze_plan.Error, match="model is of type Plan"):
        plan.apply(plan, None, 1)
    with pytest.raises(freeze_plan.Error, match="of type str"):
        plan.apply(nets.digits(), ["adam"], 1)


class Holder(torch.optim.Optimizer):
    """An optimizer in the way of Accelerate: what is asked of it is asked of the one that it holds."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    param_groups = property(lambda self: self.optimizer.param_groups)
    state = property(lambda self: self.optimizer.state)


def test_an_optimizer_may_be_wrapped(digits):
    plan = freeze_plan.plan(digits, 4, policy="thaw", decay=2.0)
    models = [nets.digits(), nets.digits()]
    for model, wrap in zip(models, (Holder, lambda optimizer: optimizer), strict=True):
        optimizer = nets.sgd(model)
        for epoch in range(1, 5):
            plan.apply(model, wrap(optimizer), epoch)
            for batch in nets.batches():
                nets.step(model, optimizer, batch)
    for name, value in nets.values(models[0]).items():
        assert torch.equal(value, models[1].state_dict()[name]), name


def test_an_optimizer_of_one_vector_is_refused(plan):
    model = nets.digits()
    with pytest.raises(freeze_plan.Error, match="LBFGS") as raised:
        plan.apply(model, torch.optim.LBFGS(model.parameters()), 1)
    assert raised.value.kind == "unsupported"


OPTIMIZERS = {
    "groups of one": lambda model: torch.optim.SGD([{"params": [own]} for own in model.parameters()], lr=0.01),
    "a tensor as rate": lambda model: torch.optim.AdamW(model.parameters(), lr=torch.tensor(0.01)),
    "fused": lambda model: torch.optim.AdamW(model.parameters(), lr=0.01, fused=True),
    "foreach": lambda model: torch.optim.RMSprop(model.parameters(), lr=0.01, foreach=True),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("policy", ["linear", "thaw", "freezeout"])
def test_what_is_frozen_stays(digits, make, policy):
    plan = freeze_plan.plan(digits, nets.EPOCHS, policy=policy)
    assert any(entry.frozen for entry in plan)
    model = nets.digits()
    optimizer = make(model)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    for epoch in range(1, nets.EPOCHS + 1):
        entry = plan.apply(model, optimizer, epoch)
        before = nets.values(model)
        for batch in nets.batches():
            nets.step(model, optimizer, batch)
        schedule.step()
        stays = {name for name, own in model.named_parameters() if torch.equal(before[name], own)}
        assert stays == set(entry.frozen)


def test_groups_can_stay_whole(digits):
    plan = freeze_plan.plan(digits, 3, policy="steps", on_return="keep", steps="2:2,3:0")
    model = nets.digits()
    optimizer = nets.adam(model)
    freezer = Freezer(plan, model, optimizer, remove=False)
    counts = []
    for epoch in range(1, 4):
        freezer.apply(epoch)
        nets.step(model, optimizer, nets.batches()[0])
        counts.append(int(optimizer.state[model.conv1.weight]["step"]))
    assert counts == [1, 1, 2]


class Wrapped(torch.nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module


def test_names_are_found_behind_a_prefix(plan):
    model = Wrapped(Wrapped(nets.digits()))
    plan.apply(model, None, 4)
    frozen = {name for name, own in model.named_parameters() if not own.requires_grad}
    assert frozen == {f"module.module.{name}" for name in plan.frozen(4)}


def train(plan, model, wrapped):
    optimizer = nets.adam(wrapped)
    for epoch in range(1, len(plan) + 1):
        wrapped.train()
        plan.apply(wrapped, optimizer, epoch)
        for batch in nets.batches():
            nets.step(wrapped, optimizer, batch)
    return nets.values(model)


def test_a_compiled_module_trains_as_one_that_is_not(digits):
    plan = freeze_plan.plan(digits, 4, policy="steps", batch_norm="frozen", steps="2:6,4:2")
    plain = nets.digits()
    model = nets.digits()
    compiled = train(plan, model, torch.compile(model, backend="eager"))
    for name, value in train(plan, plain, plain).items():
        torch.testing.assert_close(compiled[name], value, msg=lambda text, name=name: f"{name}: {text}")


def test_a_module_of_several_processes_is_frozen(digits, tmp_path):
    plan = freeze_plan.plan(digits, 4, policy="steps", steps="1:6,3:0")
    plain = nets.digits()
    model = nets.digits()
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        wrapped = torch.nn.parallel.DistributedDataParallel(model, find_unused_parameters=True)
        trained = train(plan, model, wrapped)
    finally:
        torch.distributed.destroy_process_group()
    for name, value in train(plan, plain, plain).items():
        torch.testing.assert_close(trained[name], value, msg=lambda text, name=name: f"{name}: {text}")


def test_names_are_found_without_a_prefix(digits):
    plan = freeze_plan.plan(digits, **LINEAR)
    text = plan.to_json()
    for name in plan.parameters:
        text = text.replace(f'"{name}"', f'"net.{name}"')
    model = nets.digits()
    freeze_plan.Plan.from_json(text).apply(model, None, 4)
    assert {name for name, own in model.named_parameters() if not own.requires_grad} == plan.frozen(4)


def test_a_name_that_is_not_there_is_told_and_can_be_mapped(plan):
    model = nets.digits()
    model.conv_1 = model.conv1
    del model.conv1
    model.stem = torch.nn.ParameterList([model.conv_1.weight])
    del model.conv_1
    with pytest.raises(freeze_plan.Error, match=r'"conv1.weight" \(nearest: .*names=\{\'conv1.weight\'') as raised:
        plan.apply(model, None, 4)
    assert "1 of" in str(raised.value)
    plan.apply(model, None, 4, names={"conv1.weight": "stem.0"})
    assert not model.stem[0].requires_grad
    with pytest.raises(freeze_plan.Error, match='to "stem.1"'):
        Freezer(plan, model, names={"conv1.weight": "stem.1"})


def test_another_model_is_told(plan):
    model = nets.digits()
    model.conv1 = torch.nn.Conv2d(1, 8, 3, bias=False)
    with pytest.raises(freeze_plan.Error, match='unit "conv1" has 72 elements in the model, the plan says 144'):
        plan.apply(model, None, 2)
    assert all(own.requires_grad for own in model.parameters())


def test_an_epoch_that_is_not_there_is_told(plan):
    with pytest.raises(freeze_plan.Error, match="epoch is 0, expected 1 to 4"):
        plan.apply(nets.digits(), None, 0)


def test_what_did_not_train_before_never_trains(plan):
    model = nets.digits()
    model.fc.weight.requires_grad_(False)
    model.conv1.weight.requires_grad_(False)
    for epoch in (4, 1):
        plan.apply(model, None, epoch)
        assert not model.fc.weight.requires_grad and not model.conv1.weight.requires_grad
    assert model.bn1.weight.requires_grad


def test_groups_stay_where_they_are(plan):
    model = nets.digits()
    decay = [own for own in model.parameters() if own.dim() > 1]
    plain = [own for own in model.parameters() if own.dim() == 1]
    optimizer = torch.optim.SGD([{"params": decay, "weight_decay": 0.1}, {"params": plain, "lr": 0.2}], lr=0.1)
    for epoch in (1, 4, 2, 4, 1):
        plan.apply(model, optimizer, epoch)
        sizes = [len(group["params"]) for group in optimizer.param_groups]
        frozen = [sum(id(own) not in held(optimizer) for own in own_group) for own_group in (decay, plain)]
        assert [a + b for a, b in zip(sizes, frozen, strict=True)] == [len(decay), len(plain)]
        assert sum(frozen) == len(plan.frozen(epoch))


def test_a_parameter_in_no_optimizer_is_told_when_it_returns(digits):
    plan = freeze_plan.plan(digits, 2, policy="steps", steps="1:2,2:0")
    model = nets.digits()
    plan.apply(model, nets.sgd(model), 1)
    other = torch.optim.SGD([own for own in model.parameters() if own.requires_grad], lr=0.1)
    with pytest.raises(freeze_plan.Error, match='"conv1.weight" trains again and is in no optimizer'):
        plan.apply(model, other, 2)


def test_another_plan_takes_over(plan, digits):
    model = nets.digits()
    optimizer = nets.sgd(model)
    plan.apply(model, optimizer, 4)
    freeze_plan.plan(digits, 4, policy="none").apply(model, optimizer, 4)
    assert all(own.requires_grad and id(own) in held(optimizer) for own in model.parameters())


def test_a_freezer_takes_over_from_the_one_before(plan, digits):
    model = nets.digits()
    optimizer = nets.sgd(model)
    Freezer(plan, model, optimizer).apply(4)
    other = Freezer(freeze_plan.plan(digits, 4, policy="none"), model, optimizer)
    assert all(own.requires_grad and id(own) in held(optimizer) for own in model.parameters())
    other.apply(4)
    plan.apply(model, optimizer, 4)
    assert {name for name, own in model.named_parameters() if not own.requires_grad} == plan.frozen(4)


def test_a_run_goes_on_from_a_checkpoint(digits):
    plan = freeze_plan.plan(
        digits, 4, policy="steps", on_return="keep", steps="2:6,3:2,4:0"
    )

    def train(model, optimizer, freezer, epochs):
        losses = []
        for epoch in epochs:
            freezer.apply(epoch)
            losses += [nets.step(model, optimizer, batch) for batch in nets.batches()]
        return losses

    model = nets.digits()
    optimizer = nets.adam(model)
    freezer = Freezer(plan, model, optimizer)
    whole = train(model, optimizer, freezer, [1, 2])
    file = io.BytesIO()
    torch.save([model.state_dict(), optimizer.state_dict(), freezer.state_dict()], file)
    whole = train(model, optimizer, freezer, [3, 4])

    file.seek(0)
    states = torch.load(file, weights_only=True)
    again = nets.digits()
    optimizer = nets.adam(again)
    freezer = Freezer(plan, again, optimizer)
    freezer.apply(2)
    again.load_state_dict(states[0])
    optimizer.load_state_dict(states[1])
    freezer.load_state_dict(states[2])
    assert train(again, optimizer, freezer, [3, 4]) == whole


def test_a_state_of_another_plan_is_told(plan):
    with pytest.raises(freeze_plan.Error, match='it has "stem.weight"'):
        Freezer(plan, nets.digits()).load_state_dict({"kept": {}, "returned": {"stem.weight": 3}})


def test_nothing_keeps_a_module_alive(plan):
    model = nets.digits()
    optimizer = nets.sgd(model)
    plan.apply(model, optimizer, 4)
    alive = weakref.ref(optimizer)
    del optimizer
    gc.collect()
    assert alive() is None
    plan.apply(model, nets.sgd(model), 1)
    alive = weakref.ref(model)
    copy.deepcopy(model)
    del model
    gc.collect()
    assert alive() is None


class Small(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU())
        self.drop = torch.nn.Dropout(0.5)
        self.proj = torch.nn.Linear(36, 8, bias=False)
        self.head = torch.nn.Linear(8, 3)

    def forward(self, x):
        return self.head(torch.relu(self.proj(self.drop(self.stem(x).flatten(1)))))


def test_a_folded_name_says_how_to_export(tmp_path):
    pytest.importorskip("onnx", reason="onnx is not installed")
    path = tmp_path / "model.onnx"
    torch.onnx.export(nets.digits().eval(), (torch.randn(2, 1, 8, 8),), path, dynamo=False)
    plan = freeze_plan.plan(path, 4, freeze_start=0.0)
    with pytest.raises(freeze_plan.Error, match="do_constant_folding=False") as raised:
        plan.apply(nets.digits(), None, 4)
    assert '"onnx::Conv_' in str(raised.value)


def test_what_the_exporter_returns_is_planned():
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    model = nets.digits()
    program = torch.onnx.export(model, (torch.randn(2, 1, 8, 8),), dynamo=True, optimize=False, verbose=False)
    plan = freeze_plan.plan(program, 4, freeze_start=0.0)
    plan.apply(model, None, 4)
    assert {name for name, own in model.named_parameters() if not own.requires_grad} == plan.frozen(4) != set()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("dynamo", [False, True])
def test_names_of_both_exporters_are_found(tmp_path, dynamo, training):
    pytest.importorskip("onnx", reason="onnx is not installed")
    if dynamo:
        pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    model = Small().train(training)
    path = tmp_path / "model.onnx"
    kept = {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False} if training else {}
    options = {"optimize": not training} if dynamo else kept
    torch.onnx.export(model, (torch.randn(2, 1, 5, 5),), path, dynamo=dynamo, **options)
    plan = freeze_plan.plan(path, 4, policy="steps", dropout="off", steps="2:1,3:2,4:3")
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    # Names of this exporter do not say the module of a Dropout node.
    outputs = {name for entry in plan for name in entry.dropout_off}
    assert bool(outputs) is training
    names = {name: "drop" for name in outputs} if dynamo else None
    frozen = []
    for epoch in range(1, 5):
        plan.apply(model, optimizer, epoch, names=names)
        model.train()
        model(torch.randn(2, 1, 5, 5))
        assert model.drop.training is not bool(plan[epoch - 1].dropout_off)
        frozen.append([name for name, own in model.named_parameters() if not own.requires_grad])
    stem = ["stem.0.weight", "stem.0.bias"]
    assert frozen == [[], stem, [*stem, "proj.weight"], [*stem, "proj.weight", "head.weight", "head.bias"]]
