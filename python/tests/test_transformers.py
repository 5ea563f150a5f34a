"""A plan in the Trainer of Transformers."""

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")
pytest.importorskip("accelerate", reason="accelerate is not installed")

import nets  # noqa: E402
from torch.utils.data import Dataset  # noqa: E402
from transformers import Trainer, TrainerCallback, TrainingArguments  # noqa: E402

import freeze_plan  # noqa: E402
from freeze_plan.transformers import FreezePlan  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
torch.set_num_threads(1)


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nets.digits()
        self.losses = []

    def forward(self, x, labels):
        logits = self.net(x)
        loss = torch.nn.functional.cross_entropy(logits, labels)
        self.losses.append(loss.item())
        return {"loss": loss, "logits": logits}


class Rows(Dataset):
    def __init__(self):
        self.images, self.labels = nets.data()

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {"x": self.images[index], "labels": self.labels[index]}


class InOrder(Trainer):
    def _get_train_sampler(self, *_):
        return None


class Watch(TrainerCallback):
    """Notes what trains."""

    def __init__(self):
        self.frozen, self.gradients = [], []

    def on_step_begin(self, args, state, control, model, **_):
        self.frozen.append({name for name, value in model.net.named_parameters() if not value.requires_grad})

    def on_pre_optimizer_step(self, args, state, control, model, **_):
        self.gradients.append({name for name, value in model.net.named_parameters() if value.grad is not None})


def train(plan, folder, make=nets.sgd, resume=None, **options):
    model, watch = Model(), Watch()
    optimizer = make(model)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    arguments = TrainingArguments(
        str(folder),
        num_train_epochs=nets.EPOCHS,
        per_device_train_batch_size=nets.BATCH,
        max_grad_norm=0.0,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        **{"save_strategy": "no", **options},
    )
    callbacks = [FreezePlan(plan), watch]
    trainer = InOrder(model, arguments, train_dataset=Rows(), optimizers=(optimizer, schedule), callbacks=callbacks)
    trainer.train(resume_from_checkpoint=resume)
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
    for step, (frozen, gradients) in enumerate(zip(watch.frozen, watch.gradients, strict=True)):
        assert frozen == plan.frozen(1 + step // nets.STEPS) and gradients == everything - frozen


def test_what_freezes_within_an_epoch(digits, tmp_path):
    plan = freeze_plan.plan(digits, nets.EPOCHS, policy="freezeout", steps_per_epoch=nets.STEPS, batch=nets.BATCH)
    assert any(entry.changes for entry in plan)
    _, watch = train(plan, tmp_path)
    steps = [divmod(step, nets.STEPS) for step in range(nets.EPOCHS * nets.STEPS)]
    assert watch.frozen == [plan.frozen(1 + epoch, step) for epoch, step in steps]


@pytest.mark.parametrize("on_return", ["reset", "keep"])
def test_a_run_goes_on_from_a_checkpoint(digits, tmp_path, on_return):
    plan = freeze_plan.plan(digits, nets.EPOCHS, policy="steps", on_return=on_return, steps="2:6,3:2,4:0")
    whole, first = train(plan, tmp_path, nets.adam, save_strategy="steps", save_steps=nets.STEPS + 1)
    rest, then = train(plan, tmp_path, nets.adam, resume=str(tmp_path / f"checkpoint-{nets.STEPS + 1}"))
    assert rest.losses == whole.losses[nets.STEPS + 1 :]
    assert then.frozen == first.frozen[nets.STEPS + 1 :]


def test_all_trains_again_when_the_run_is_over(digits, tmp_path):
    model, watch = train(freeze_plan.plan(digits, nets.EPOCHS, freeze_start=0.0), tmp_path)
    assert watch.frozen[-1] and all(value.requires_grad for value in model.parameters())
