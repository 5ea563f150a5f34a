"""Rows a second of torchvision's DataLoader: loading.py FOLDER WORKERS [train]; loading.py --make FOLDER makes pictures.

Pictures are resized to 256 and cropped to 224; with `train` a random crop is resized, flipped. See benches/loading.rs.
"""

import sys
import time
from pathlib import Path


def make(folder, count=384):
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    for index in range(count):
        coarse = random.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC)
        noise = random.integers(-12, 13, (375, 500, 3))
        pixels = np.clip(np.asarray(image).astype(int) + noise, 0, 255).astype(np.uint8)
        path = Path(folder) / f"class{index % 3}"
        path.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path / f"{index}.jpg", quality=90)


def measure(folder, workers, train):
    import torch
    from torchvision import datasets, transforms

    torch.set_num_threads(1)
    first = [transforms.Resize(256), transforms.CenterCrop(224)]
    if train:
        first = [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip()]
    moments = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    data = datasets.ImageFolder(folder, transforms.Compose([*first, transforms.ToTensor(), moments]))
    keep = workers > 0
    loader = torch.utils.data.DataLoader(
        data, 32, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=keep
    )
    for _ in loader:
        pass
    start = time.perf_counter()
    rows = sum(len(labels) for _, labels in loader)
    print(f"{rows / (time.perf_counter() - start):.1f} rows/s with {workers} workers")


if __name__ == "__main__":
    if sys.argv[1] == "--make":
        make(sys.argv[2])
    else:
        measure(sys.argv[1], int(sys.argv[2]), len(sys.argv) > 3)
