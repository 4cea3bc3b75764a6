"""PyTorch: an eager loop over tensors that are on the device already, with ``--channels-last`` in that layout."""

from experiments.measure.contestants import Architecture
from experiments.measure.contestants.serving import BATCH, RATE, Options, Trainer, load_images, main


def make_trainer(options: Options, network: Architecture, seed: int) -> Trainer:
    """Returns a trainer."""
    import numpy as np
    import torch
    from torch import nn

    if options.single_thread:
        torch.set_num_threads(1)
    torch.manual_seed(seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    layout = torch.channels_last if options.channels_last else torch.contiguous_format
    first, second = network.filters
    model = nn.Sequential(
        nn.Conv2d(1, first, network.window, padding=network.padding),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(first, second, network.window, padding=network.padding),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.LazyLinear(10),
    )
    model(torch.zeros(1, 1, 28, 28))  # from which the last layer learns its size
    model.to(device, memory_format=layout)
    optimizer, loss_of = torch.optim.SGD(model.parameters(), RATE), nn.CrossEntropyLoss()

    def put(name: str) -> tuple[torch.Tensor, torch.Tensor]:
        images, labels = load_images(name)
        channels_first = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        return channels_first.to(device, memory_format=layout), torch.from_numpy(labels).long().to(device)

    images, labels = put("train")

    def train(steps: int) -> float:
        rows = torch.randperm(len(images), device=device)[: steps * BATCH].reshape(steps, BATCH)
        for batch in rows:
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(model(images[batch]), labels[batch])
            loss.backward()
            optimizer.step()
        return float(loss.detach())

    def evaluate() -> float:
        tests, answers = put("test")
        with torch.no_grad():
            right = [
                (model(tests[start : start + BATCH]).argmax(1) == answers[start : start + BATCH]).sum()
                for start in range(0, len(tests), BATCH)
            ]
        return float(sum(right)) / len(tests)

    return Trainer(str(device), train, evaluate)


if __name__ == "__main__":
    main(make_trainer)
