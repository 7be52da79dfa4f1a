"""Train the demo's model on the first three minutes and write src/ifgo/demo/heartbeat.onnx.

    python train.py [--out heartbeat.onnx]        needs PyTorch, takes seconds

A stacked LSTM, 1 → 16 → 16 → 16, and one Dense on its last step: the log-odds that a beat is
ventricular. Prints the scores of the last two minutes beside a linear baseline. The labels are
the rule's (make_data.py); the tests judge by the record's own annotation.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ifgo import demo

HIDDEN_SIZE = 16
LAYERS = 3
FORGET_BIAS = 2.0  # at 0 nothing is learnt: the shape must outlive the 80 steps after the peak
EPOCHS = 100
BATCH = 32
LEARNING_RATE = 5e-3
SEED = 208


class Heartbeat(nn.Module):
    """x (B, T, 1) → logit (B, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(1, HIDDEN_SIZE, LAYERS, batch_first=True)
        self.dense = nn.Linear(HIDDEN_SIZE, 1)
        for layer in range(LAYERS):
            bias = getattr(self.lstm, f"bias_ih_l{layer}")
            nn.init.constant_(bias[HIDDEN_SIZE : 2 * HIDDEN_SIZE], FORGET_BIAS)

    def forward(self, x: Tensor) -> Tensor:
        """The logit of each beat."""
        y, _ = self.lstm(x)
        return self.dense(y[:, -1])


def train(x: Tensor, label: Tensor) -> Heartbeat:
    """A model fitted to x (N, T, 1) and label (N, 1) in {0, 1}; the same bits on one machine."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    model = Heartbeat()
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    loss_of = nn.BCEWithLogitsLoss()
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            loss_of(model(x[batch]), label[batch]).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        schedule.step()
    return model.eval()


def export(model: Heartbeat, path: Path) -> None:
    """Write `model` as ONNX with free batch and time axes.

    The TorchScript exporter is chosen because its file is the smaller one: three LSTM nodes with
    a Squeeze each, where the newer exporter computes the shapes at run time.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it announces its retirement, and traces the batch size
        torch.onnx.export(
            model,
            (torch.zeros(1, demo.STEPS, 1),),
            path,
            dynamo=False,
            opset_version=17,
            input_names=["x"],
            output_names=["logit"],
            dynamic_axes={"x": {0: "batch", 1: "time"}, "logit": {0: "batch"}},
        )


def main() -> None:
    """Train, write the model, and print the scores of the last two minutes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=demo.model_path(), help="ONNX file to write")
    out = parser.parse_args().out
    beats = demo.beats()
    x = torch.from_numpy(beats.x)
    label = torch.from_numpy(beats.label.astype(np.float32))[:, None]
    start = time.perf_counter()
    model = train(x[~beats.in_test], label[~beats.in_test])
    print(f"trained on {(~beats.in_test).sum()} beats in {time.perf_counter() - start:.1f} s")
    export(model, out)
    with torch.no_grad():
        logits = model(x)[:, 0].numpy()
    for name, values in (("LSTM", logits), ("linear", demo.linear_baseline(beats))):
        print(f"{name}: {demo.score(values[beats.in_test], beats.label[beats.in_test])}")


if __name__ == "__main__":
    main()
