"""PyTorch: a loop over tensors that are on the device already.

``--channels-last`` has them in that layout, and ``--compiled`` compiles the network by ``torch.compile``, which needs a
compiler of C++. Lower precision is that of ``torch.autocast``.
"""

from typing import Any

from experiments.measure.contestants.networks import CLASSES, Block, Network
from experiments.measure.contestants.serving import BATCH, RATE, Options, Trainer, load_images, main


def make_module(network: Network) -> Any:
    """Returns the module, for images (batch, channels, height, width).

    With padding ``same``, strided convolutions are padded alike on all sides, as users of PyTorch do.
    """
    import torch
    from torch import nn
    from torch.nn import functional

    class Layers(nn.Module):  # type: ignore[misc]
        def __init__(self, block: Block, channels: int) -> None:
            super().__init__()
            self.shortcut = block.shortcut
            self.convolution = nn.Conv2d(
                channels,
                block.filters,
                block.window,
                block.strides,
                padding=block.window // 2 if block.padding == "same" else 0,
                groups=channels if block.is_depthwise else 1,
                bias=block.bias,
            )
            self.norm = nn.BatchNorm2d(block.filters) if block.norm else nn.Identity()
            self.pool = {"max": nn.MaxPool2d(2), "avg": nn.AvgPool2d(2), "none": nn.Identity()}[block.pool]

        def forward(self, x: torch.Tensor, inputs: list[torch.Tensor]) -> torch.Tensor:
            x = self.norm(self.convolution(x))
            if self.shortcut:
                start = inputs[-self.shortcut]
                stride = start.shape[2] // x.shape[2]
                x = x + functional.pad(start[:, :, ::stride, ::stride], (0, 0, 0, 0, 0, x.shape[1] - start.shape[1]))
            return self.pool(functional.relu(x, inplace=True))

    class Module(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            channels = (network.image_shape[2], *(block.filters for block in network.blocks))
            self.blocks = nn.ModuleList(map(Layers, network.blocks, channels))
            self.pool = nn.AdaptiveAvgPool2d(1) if network.averages else nn.Identity()
            hidden = [layer for width in network.dense for layer in (nn.LazyLinear(width), nn.ReLU())]
            self.dense = nn.Sequential(nn.Flatten(), *hidden, nn.LazyLinear(CLASSES))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            inputs: list[torch.Tensor] = []
            for block in self.blocks:
                inputs.append(x)
                x = block(x, inputs)
            return self.dense(self.pool(x))

    module = Module()
    height, width, channels = network.image_shape
    with torch.no_grad():
        module.eval()(torch.zeros(1, channels, height, width))  # from which the dense layers learn their sizes
    return module.train()


def make_trainer(options: Options, network: Network, seed: int) -> Trainer:
    """Returns a trainer."""
    import numpy as np
    import torch
    from torch import nn

    if options.single_thread:
        torch.set_num_threads(1)
    torch.manual_seed(seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    layout = torch.channels_last if options.channels_last else torch.contiguous_format
    module = make_module(network).to(device, memory_format=layout)
    state = module.state_dict().items()
    parameters = sum(tensor.numel() for name, tensor in state if not name.endswith("num_batches_tracked"))
    model = torch.compile(module) if options.is_compiled else module
    optimizer, loss_of = torch.optim.SGD(module.parameters(), RATE), nn.CrossEntropyLoss()
    lower = torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bfloat16")

    def put(name: str) -> tuple[torch.Tensor, torch.Tensor]:
        images, labels = load_images(network.image_shape, name)
        channels_first = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        return channels_first.to(device, memory_format=layout), torch.tensor(labels, dtype=torch.long, device=device)

    images, labels = put("train")

    def train(steps: int) -> float:
        module.train()
        rows = torch.randperm(len(images), device=device)[: steps * BATCH].reshape(steps, BATCH)
        for batch in rows:
            optimizer.zero_grad(set_to_none=True)
            with lower:
                loss = loss_of(model(images[batch]), labels[batch])
            loss.backward()
            optimizer.step()
        return float(loss.detach())

    def evaluate() -> float:
        module.eval()
        tests, answers = put("test")
        with torch.no_grad(), lower:
            right = [
                (model(tests[start : start + BATCH]).argmax(1) == answers[start : start + BATCH]).sum()
                for start in range(0, len(tests), BATCH)
            ]
        return float(sum(right)) / len(tests)

    return Trainer(str(device), parameters, train, evaluate)


if __name__ == "__main__":
    main(make_trainer)
