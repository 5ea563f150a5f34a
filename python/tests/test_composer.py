"""A plan in Composer's trainer, beside Composer's own LayerFreezing."""

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("composer", reason="mosaicml is not installed")

import nets  # noqa: E402
from composer import Algorithm, Event, Trainer  # noqa: E402
from composer.algorithms import LayerFreezing  # noqa: E402
from composer.models import ComposerModel  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

import freeze_plan  # noqa: E402
from freeze_plan.composer import FreezePlan  # noqa: E402

torch.set_num_threads(1)


class Model(ComposerModel):
    def __init__(self):
        super().__init__()
        self.net = nets.digits()

    def forward(self, batch):
        return self.net(batch[0])

    def loss(self, outputs, batch):
        return torch.nn.functional.cross_entropy(outputs, batch[1])


class Watch(Algorithm):
    """Notes what trains and what the losses are."""

    def __init__(self):
        self.frozen, self.losses, self.grouped, self.gradients = [], [], [], []

    def match(self, event, state):
        return event in (Event.BATCH_START, Event.AFTER_LOSS, Event.BATCH_END)

    def apply(self, event, state, logger):
        own = {name.removeprefix("net."): value for name, value in state.model.named_parameters()}
        if event == Event.AFTER_LOSS:
            self.losses.append(state.loss.item())
        elif event == Event.BATCH_END:
            self.gradients.append({name for name, value in own.items() if value.grad is not None})
        elif state.timestamp.batch_in_epoch.value == 0:
            grouped = {id(value) for group in state.optimizers[0].param_groups for value in group["params"]}
            self.frozen.append({name for name, value in own.items() if not value.requires_grad})
            self.grouped.append({name for name, value in own.items() if id(value) in grouped})


def train(algorithm, epochs=nets.EPOCHS, **options):
    model, watch = Model(), Watch()
    loader = DataLoader(TensorDataset(*nets.data()), batch_size=nets.BATCH)
    trainer = Trainer(
        model=model,
        train_dataloader=loader,
        optimizers=nets.sgd(model),
        max_duration=f"{epochs}ep",
        algorithms=[algorithm, watch],
        device="cpu",
        progress_bar=False,
        auto_log_hparams=False,
        **options,
    )
    trainer.fit()
    return model, watch


def test_training_is_that_of_a_loop_by_hand(digits):
    plan = freeze_plan.plan(digits, nets.EPOCHS, freeze_start=0.0)
    expected, losses = nets.by_hand(plan, nets.sgd)
    model, watch = train(FreezePlan(plan))
    assert watch.losses == losses
    for name, value in expected.state_dict().items():
        assert torch.equal(value, model.net.state_dict()[name]), name
    everything = set(plan.parameters)
    for epoch, (frozen, grouped) in enumerate(zip(watch.frozen, watch.grouped, strict=True), start=1):
        assert frozen == plan.frozen(epoch) and grouped == everything - frozen
        assert watch.gradients[epoch * nets.STEPS - 1] == everything - frozen


@pytest.mark.parametrize(("start", "level", "epochs"), [(0.0, 1.0, 4), (0.5, 1.0, 6), (0.2, 0.6, 5)])
def test_the_schedule_is_that_of_layer_freezing(digits, start, level, epochs):
    plan = freeze_plan.plan(digits, epochs, unit="composer", freeze_start=start, freeze_level=level)
    _, theirs = train(LayerFreezing(freeze_start=start, freeze_level=level), epochs)
    _, ours = train(FreezePlan(plan), epochs)
    assert ours.frozen == theirs.frozen and any(ours.frozen)
    assert ours.losses == theirs.losses


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("on_return", ["reset", "keep"])
def test_a_run_goes_on_from_a_checkpoint(digits, tmp_path, on_return):
    plan = freeze_plan.plan(digits, nets.EPOCHS, policy="steps", on_return=on_return, steps="2:6,3:2,4:0")
    _, whole = train(FreezePlan(plan), save_folder=str(tmp_path), save_overwrite=True)
    first = sorted(tmp_path.glob("ep2-*"))[0]
    _, rest = train(FreezePlan(plan, resume_epoch=2), load_path=str(first))
    assert rest.losses == whole.losses[2 * nets.STEPS :]
    assert rest.frozen == whole.frozen[2:]
