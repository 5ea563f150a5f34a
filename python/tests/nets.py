"""The digits model in PyTorch, and data for it. The tests that import this need torch."""

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + x)


class Digits(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.block1 = Block(16)
        self.conv2 = nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(32)
        self.block2 = Block(32)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(32, 10)

    def forward(self, x):
        x = self.block1(self.relu(self.bn1(self.conv1(x))))
        x = self.block2(self.relu(self.bn2(self.conv2(x))))
        return self.fc(self.flatten(self.pool(x)))


EPOCHS, STEPS, BATCH = 4, 3, 8


def digits():
    torch.manual_seed(1)
    return Digits()


def data():
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(STEPS * BATCH, 1, 8, 8, generator=generator)
    labels = torch.randint(0, 10, (STEPS * BATCH,), generator=generator)
    return images, labels


def batches():
    images, labels = data()
    return list(zip(images.split(BATCH), labels.split(BATCH), strict=True))


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)


def adam(model):
    return torch.optim.AdamW(model.parameters(), lr=0.01)


def values(model):
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def step(model, optimizer, batch):
    optimizer.zero_grad(set_to_none=True)
    loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
    loss.backward()
    optimizer.step()
    return loss.item()


def by_hand(plan, make, on_epoch=None):
    """Trains with requires_grad set by hand, frozen parameters left in their groups; returns the model and the losses."""
    model = digits()
    optimizer = make(model)
    losses = []
    for epoch in range(1, len(plan) + 1):
        model.train()
        frozen = plan.frozen(epoch)
        for name, parameter in model.named_parameters():
            parameter.requires_grad = name not in frozen
            if name in frozen:
                parameter.grad = None
        if on_epoch is not None:
            on_epoch(epoch, model, optimizer)
        losses += [step(model, optimizer, batch) for batch in batches()]
    return model, losses
