"""The pieces that tasks share: how images are divided and measured, windows of text, networks."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from steepest.race.data import cifar
from steepest.race.data.text import Characters
from steepest.race.records import RaceError
from steepest.race.tasks import characters, classification, pictures, reconstruction
from steepest.race.tasks.autoencoder import task as autoencoder_task
from steepest.race.tasks.cifar import task as cifar_task
from steepest.race.tasks.pictures import Part, Pictures, Standardize
from steepest.race.tasks.resnet9 import Pair, resnet9
from steepest.race.tasks.transformer import Transformer


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_parts_are_apart_complete_and_of_all_classes(data) -> None:
    found = pictures.cifar10()
    train, val = found.train.index, found.val.index
    assert len(train) == 180
    assert sorted(torch.cat([train, val]).tolist()) == list(range(200))
    assert sorted(found.test.index.tolist()) == list(range(60))
    # The files are sorted by class; no part is, so that its beginning has all of them.
    _, labels = found.test.take(torch.arange(40))
    assert len(labels.unique()) == 10
    assert torch.equal(pictures.cifar10().val.index, val)


def test_drawn_images_are_training_images_with_their_classes(data) -> None:
    found = pictures.grey("fashion-mnist")
    images, labels = pictures.draw(found, generator(), 50)
    assert images.shape == (50, 1, 28, 28)
    assert images.dtype == torch.uint8
    assert torch.equal(images.flatten(1).long().min(1).values // 20, labels)
    held_out = {bytes(image.flatten().tolist()) for image in found.val.images[found.val.index]}
    assert not held_out & {bytes(image.flatten().tolist()) for image in images}


def test_standardized_images_have_the_published_moments() -> None:
    """A picture whose channels are at mean and at one deviation above becomes 0 and 1."""
    mean, std = (torch.tensor(values) for values in pictures.MOMENTS["cifar10"])
    images = torch.stack([255 * mean, 255 * (mean + std)]).view(2, 3, 1, 1)
    torch.testing.assert_close(
        Standardize("cifar10")(images).flatten(1), torch.tensor([[0.0] * 3, [1.0] * 3])
    )


@pytest.mark.parametrize("name", ["fashion-mnist", "cifar10"])
def test_moments_are_those_of_the_real_images(real_data, decoded, name, monkeypatch) -> None:
    if name == "cifar10" and not (real_data / "cifar-10-binary.tar.gz").exists():
        pytest.skip("the original images are not there, and others have other moments")
    found = pictures.cifar10() if name == "cifar10" else pictures.grey(name)
    x = found.train.images.float() / 255
    mean, std = pictures.MOMENTS[name]
    assert x.mean((0, 2, 3)).tolist() == pytest.approx(mean, abs=1e-3)
    assert x.transpose(0, 1).flatten(1).std(1).tolist() == pytest.approx(std, abs=1e-3)


class Brightness(nn.Module):
    """Logits that say a class by how bright an image is."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        bright = images.flatten(1).float().mean(1, keepdim=True) / 20
        return -self.scale * (bright - 0.25 - torch.arange(10)).abs()


def test_metrics_of_classes_are_means_over_all_chunks(data, monkeypatch) -> None:
    found = pictures.grey("fashion-mnist")
    network = Brightness()
    with torch.no_grad():
        whole = classification.evaluate(network, found, validation=1000, test=1000)
        monkeypatch.setattr(pictures, "CHUNK", 7)
        in_chunks = classification.evaluate(network, found, validation=1000, test=1000)
        logits = network(found.test.images)
        correct = (logits.argmax(1) == found.test.labels).float().mean().item()
        val = found.val.images[found.val.index], found.val.labels[found.val.index]
        loss = F.cross_entropy(network(val[0]), val[1]).item()
    assert whole == pytest.approx(in_chunks)
    assert whole["test_accuracy"] == pytest.approx(correct)
    assert whole["val_loss"] == pytest.approx(loss)
    assert whole["val_accuracy"] > 0.9


def test_reconstruction_is_measured_per_pixel() -> None:
    """A network that answers 0 errs by the mean square of the pixels: bytes 51 and 102 are 0.2 and 0.4."""

    class Zero(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.weight

    images = torch.full((4, 1, 28, 28), 51, dtype=torch.uint8)
    images[2:] = 102
    part = Part(images, torch.zeros(4, dtype=torch.long), torch.arange(4))
    found = Pictures(part, part, part)
    assert reconstruction.evaluate(Zero(), found, validation=4)["val_loss"] == pytest.approx(
        (0.04 + 0.16) / 2
    )
    assert reconstruction.evaluate(Zero(), found, validation=2)["val_loss"] == pytest.approx(0.04)
    layers = reconstruction.autoencoder((6, 3, 6), nn.ReLU)
    assert [type(layer) for layer in layers] == [nn.Linear, nn.ReLU, nn.Linear, nn.Sigmoid]


class AlwaysNext(nn.Module):
    """Knows that the alphabet repeats: gives the next letter half of the probability."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.vocabulary = nn.Parameter(torch.tensor(float(vocabulary)))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        count = int(self.vocabulary)
        follows = F.one_hot((tokens + 1) % count, count)
        return (follows * 0.5 + (1 - follows) * 0.5 / (count - 1)).log()


def test_windows_of_text_and_their_loss(monkeypatch) -> None:
    alphabet = torch.arange(600) % 10
    text = Characters(alphabet[:500], alphabet[500:], 10)
    drawn = characters.windows(text, generator(), 9, context=7)
    assert drawn.shape == (9, 8)
    assert torch.equal((drawn[:, :1] + torch.arange(8)) % 10, drawn)
    assert len(drawn[:, 0].unique()) > 3
    network = AlwaysNext(10)
    assert characters.loss(network, drawn).item() == pytest.approx(math.log(2))
    monkeypatch.setattr(characters, "CHUNK", 4)
    metrics = characters.evaluate(network, text, context=7, count=10**6)
    assert metrics == {"val_loss": pytest.approx(math.log(2), rel=1e-6), "val_accuracy": 1.0}


def test_validation_windows_reach_from_the_first_to_the_last_character() -> None:
    seen = []

    class Watch(AlwaysNext):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            seen.append(tokens)
            return super().forward(tokens)

    text = Characters(torch.arange(10), torch.arange(50), 50)
    characters.evaluate(Watch(50), text, context=7, count=3)
    assert torch.cat(seen)[:, 0].tolist() == [0, 21, 42]


def test_the_transformer_sees_only_the_past() -> None:
    torch.manual_seed(0)
    network = Transformer(11, context=8, width=16, heads=2, layers=2)
    tokens = torch.randint(11, (3, 8))
    changed = tokens.clone()
    changed[:, 5] = (changed[:, 5] + 1) % 11
    before, after = network(tokens), network(changed)
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5:], after[:, 5:])


def test_dropout_is_of_training_alone_and_none_draws_nothing() -> None:
    torch.manual_seed(0)
    tokens = torch.randint(11, (3, 8))
    with_dropout = Transformer(11, context=8, width=16, heads=2, layers=1, dropout=0.3)
    assert not torch.equal(with_dropout(tokens), with_dropout(tokens))
    with_dropout.eval()
    assert torch.equal(with_dropout(tokens), with_dropout(tokens))
    without = Transformer(11, context=8, width=16, heads=2, layers=1)
    state = torch.get_rng_state()
    without(tokens)
    assert torch.equal(torch.get_rng_state(), state)


def test_residual_links_and_their_absence() -> None:
    torch.manual_seed(0)
    pair, x = Pair(4, residual=True), torch.randn(2, 4, 8, 8)
    plain = Pair(4, residual=False)
    plain.load_state_dict(pair.state_dict())
    torch.testing.assert_close(pair(x), x + plain(x))


@pytest.mark.parametrize("side", [32, 16])
def test_resnet9_ends_with_one_place(side) -> None:
    network = resnet9(8, side=side)
    shapes = {n: tuple(p.shape) for n, p in network.named_parameters() if p.ndim > 1}
    widths = [shape[:2] for shape in shapes.values()]
    assert widths == [(8, 3), (16, 8), (16, 16), (16, 16), (32, 16), (64, 32), (64, 64), (64, 64), (10, 64)]
    assert network(torch.randn(2, 3, side, side)).shape == (2, 10)


def test_cifar_batches_are_shifted_bytes(data) -> None:
    task = cifar_task()
    found = task.data()
    images, labels = task.batch(found, generator(5), 32)
    again, _ = task.batch(found, generator(5), 32)
    assert torch.equal(images, again)
    assert images.dtype == torch.uint8
    plain, plain_labels = pictures.draw(found, generator(5), 32)
    assert torch.equal(labels, plain_labels)
    assert not torch.equal(images, plain)
    for image, label in zip(images, labels, strict=True):
        assert image.max() // 20 == label  # what a shift brings in is black


def test_options_are_checked(data) -> None:
    with pytest.raises(RaceError, match=r"mnist or fashion-mnist|fashion-mnist or mnist.*did you mean"):
        autoencoder_task(dataset="fashion")
    with pytest.raises(RaceError, match="plain must be True or False, got 'no'"):
        cifar_task(plain="no")  # pyright: ignore[reportArgumentType]


def test_results_on_recompressed_images_are_called_so(data, monkeypatch) -> None:
    assert cifar_task().description.startswith("CIFAR-10,")
    monkeypatch.setattr(cifar, "called", lambda: "CIFAR-10 (JPEG)")
    assert cifar_task().description.startswith("CIFAR-10 (JPEG),")
