"""PyTorch: an eager loop over tensors that are on the device already, with ``--channels-last`` in that layout."""

from experiments.contestants.serving import BATCH, RATE, Trainer, load_training_images, read_options, serve


def make_trainer(single_thread: bool, channels_last: bool) -> Trainer:
    """Returns a trainer of the textbook network."""
    import torch
    from torch import nn

    if single_thread:
        torch.set_num_threads(1)
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = nn.Sequential(
        nn.Conv2d(1, 32, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(1024, 10),
    ).to(device, memory_format=layout)
    optimizer, loss_of = torch.optim.SGD(model.parameters(), RATE), nn.CrossEntropyLoss()
    loaded, numbers = load_training_images()
    images = torch.from_numpy(loaded.transpose(0, 3, 1, 2).copy()).to(device, memory_format=layout)
    labels = torch.from_numpy(numbers).long().to(device)

    def train(steps: int) -> float:
        rows = torch.randperm(len(images), device=device)[: steps * BATCH].reshape(steps, BATCH)
        for batch in rows:
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(model(images[batch]), labels[batch])
            loss.backward()
            optimizer.step()
        return float(loss.detach())

    return Trainer(str(device), train)


if __name__ == "__main__":
    core, rest = read_options()
    serve(make_trainer(core is not None, "--channels-last" in rest))
