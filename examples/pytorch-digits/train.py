"""Trains a small convolutional network and exports it with torch.export.

Usage: python train.py FOLDER
"""

import json
import sys
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn


def main(folder: Path) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    x, y = load_digits(return_X_y=True)
    images = torch.tensor(x, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    split = train_test_split(images, torch.tensor(y), random_state=0, stratify=y)
    x_train, x_test, y_train, y_test = split
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10),
    )  # fmt: skip
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(8):
        for batch in torch.randperm(len(x_train)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x_train[batch]), y_train[batch]).backward()
            optimizer.step()
    network.eval()
    rows = torch.export.Dim("rows", min=1, max=4096)
    program = torch.export.export(network, (x_test[:2],), dynamic_shapes=({0: rows},))
    torch.export.save(program, folder / "digits.pt2")
    with torch.no_grad():
        scores = network(x_test)
    right = (scores.argmax(1) == y_test).float().mean().item()
    (folder / "request.json").write_text(json.dumps({"data": x_test.tolist()}))
    (folder / "expected.json").write_text(json.dumps(scores.argmax(1).tolist()))
    print(f"accuracy in process: {right:.4f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
