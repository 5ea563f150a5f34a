"""A plan in Lightning's trainer."""

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pl = pytest.importorskip("lightning.pytorch", reason="lightning is not installed")

import nets  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

import freeze_plan  # noqa: E402
from freeze_plan.lightning import FreezePlan  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
torch.set_num_threads(1)


class Model(pl.LightningModule):
    def __init__(self, make):
        super().__init__()
        self.net, self.make = nets.digits(), make
        self.losses = []

    def training_step(self, batch, index):
        loss = torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        self.losses.append(loss.item())
        return loss

    def validation_step(self, batch, index):
        self.net(batch[0])

    def configure_optimizers(self):
        return self.make(self)


class Watch(pl.Callback):
    """Notes what trains."""

    def __init__(self):
        self.frozen, self.grouped, self.gradients = [], [], []

    def on_train_batch_start(self, trainer, model, batch, index):
        if index == 0:
            own = dict(model.net.named_parameters())
            grouped = {id(value) for group in trainer.optimizers[0].param_groups for value in group["params"]}
            self.frozen.append({name for name, value in own.items() if not value.requires_grad})
            self.grouped.append({name for name, value in own.items() if id(value) in grouped})

    def on_before_optimizer_step(self, trainer, model, optimizer):
        self.gradients.append({name for name, value in model.net.named_parameters() if value.grad is not None})


def train(plan, folder, make=nets.sgd, epochs=nets.EPOCHS, callbacks=(), **options):
    model, watch = Model(make), Watch()
    loader = DataLoader(TensorDataset(*nets.data()), batch_size=nets.BATCH)
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=[FreezePlan(plan), watch, *callbacks],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        enable_checkpointing=bool(callbacks),
    )
    trainer.fit(model, loader, loader, **options)
    return model, watch


@pytest.mark.parametrize("make", [nets.sgd, nets.adam])
def test_training_is_that_of_a_loop_by_hand(digits, tmp_path, make):
    plan = freeze_plan.plan(digits, nets.EPOCHS, freeze_start=0.0)
    expected, losses = nets.by_hand(plan, make)
    model, watch = train(plan, tmp_path, make)
    assert model.losses == losses
    for name, value in expected.state_dict().items():
        assert torch.equal(value, model.net.state_dict()[name]), name
    everything = set(plan.parameters)
    for epoch, (frozen, grouped) in enumerate(zip(watch.frozen, watch.grouped, strict=True), start=1):
        assert frozen == plan.frozen(epoch) and grouped == everything - frozen
        assert watch.gradients[epoch * nets.STEPS - 1] == everything - frozen


def test_a_run_goes_on_from_a_checkpoint(digits, tmp_path):
    plan = freeze_plan.plan(digits, 4, policy="steps", on_return="keep", steps="2:6,3:2,4:0")
    every = pl.callbacks.ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1, every_n_epochs=1)
    whole, _ = train(plan, tmp_path, nets.adam, callbacks=[every])
    rest, watch = train(plan, tmp_path, nets.adam, ckpt_path=str(tmp_path / "epoch=1.ckpt"))
    assert rest.losses == whole.losses[2 * nets.STEPS :]
    assert watch.frozen == [plan.frozen(3), plan.frozen(4)]
