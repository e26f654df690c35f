"""A process that keeps a GPU busy for a part of the time, until its standard input closes.

    worker.py torch 0.9    trains a small network on the GPU that CUDA_VISIBLE_DEVICES names
    worker.py sleep 0.9    does nothing: for a fake GPU

Says "ready" once it is at work.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
import time
from collections.abc import Callable

PERIOD_SECONDS = 0.05
"""It works for its part of so long, then rests."""

WARM_STEPS = 5
"""The first steps choose kernels and allocate."""


def trainer() -> Callable[[], None]:
    """A step of training, finished when it returns."""
    torch = importlib.import_module("torch")  # not everywhere
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 64, 5, padding=2),
        torch.nn.ReLU(),
        torch.nn.Conv2d(64, 64, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(8),
        torch.nn.Flatten(),
        torch.nn.Linear(4096, 4096),
        torch.nn.ReLU(),
        torch.nn.Linear(4096, 1000),
    ).cuda()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    images = torch.randn(64, 3, 64, 64, device="cuda")
    labels = torch.randint(0, 1000, (64,), device="cuda")

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        torch.cuda.synchronize()

    for _ in range(WARM_STEPS):
        step()
    return step


def work(step: Callable[[], None], part: float) -> None:
    """Work for `part` of each period, for ever; a step that takes longer is made up for."""
    debt = 0.0
    while True:
        begin = time.perf_counter()
        while time.perf_counter() - begin < part * PERIOD_SECONDS:
            step()
        worked = time.perf_counter() - begin
        debt += worked / part - worked
        if debt > 0.001:
            rest = time.perf_counter()
            time.sleep(debt)
            debt -= time.perf_counter() - rest


def end_with_input() -> None:
    """End when whoever started this is gone."""
    sys.stdin.buffer.read()
    os._exit(0)


def main() -> None:
    kind, part = sys.argv[1], float(sys.argv[2])
    threading.Thread(target=end_with_input, daemon=True).start()
    step = trainer() if kind == "torch" else None
    print("ready", flush=True)
    if step is None:
        threading.Event().wait()
    else:
        work(step, part)


if __name__ == "__main__":
    main()
