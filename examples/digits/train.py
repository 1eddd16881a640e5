"""Train the example: a small CNN on scikit-learn's digits, exported as ONNX and as TorchScript.

Run `python examples/digits/train.py [FOLDER]`; it takes under two minutes on one core and
writes digits.onnx, digits.pt, calibration.npz (unlabelled) and evaluation.npz (held out, with
labels).
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

SEED = 0
HELD_OUT = 600
CALIBRATION = 300
EPOCHS = 30
BATCH = 64


class DigitsNet(nn.Module):
    """Four convolutions with BatchNorm: 8x8 grey image to ten logits, 187,000 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *convolution(1, 32),
            *convolution(32, 64),
            nn.MaxPool2d(2),
            *convolution(64, 96),
            *convolution(96, 128),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.classifier = nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x))


def convolution(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Images in 0..1, float32 [N, 1, 8, 8], and labels: first for training, then held out."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    kept, held, kept_labels, held_labels = train_test_split(
        images, labels, test_size=HELD_OUT, stratify=labels, random_state=SEED
    )
    return kept, kept_labels, held, held_labels


def train(images: np.ndarray, labels: np.ndarray) -> DigitsNet:
    torch.manual_seed(SEED)
    net = DigitsNet()
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    steps = EPOCHS * (len(x) // BATCH)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(x))[: len(x) // BATCH * BATCH].split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(shifted(x[batch])), y[batch]).backward()
            optimizer.step()
            schedule.step()
    return net.eval()


def shifted(images: torch.Tensor) -> torch.Tensor:
    """The batch moved by up to one pixel, so that so few images teach position too."""
    down, right = torch.randint(-1, 2, (2,)).tolist()
    return torch.roll(images, (down, right), dims=(2, 3))


def accuracy(net: DigitsNet, images: np.ndarray, labels: np.ndarray) -> float:
    with torch.no_grad():
        answers = net(torch.from_numpy(images)).argmax(1).numpy()
    return float((answers == labels).mean())


def export(net: DigitsNet, folder: Path) -> None:
    """Write both formats. BatchNorm stays: pruning scores weights as they were trained."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # both are still what people have
        torch.jit.script(net).save(folder / "digits.pt")
        torch.onnx.export(
            net,
            (torch.zeros(1, 1, 8, 8),),
            folder / "digits.onnx",
            input_names=["x"],
            output_names=["logits"],
            dynamic_axes={"x": {0: "N"}, "logits": {0: "N"}},
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
            opset_version=17,
            dynamo=False,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path(__file__).parent)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    images, labels, held, held_labels = digits()
    net = train(images, labels)
    export(net, folder)
    np.savez_compressed(folder / "calibration.npz", x=images[:CALIBRATION])
    np.savez_compressed(folder / "evaluation.npz", x=held, labels=held_labels)
    print(f"accuracy on {HELD_OUT} held-out digits: {accuracy(net, held, held_labels):.4f}")


if __name__ == "__main__":
    main()
