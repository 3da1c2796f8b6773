"""Our residual face classifier: augmentation, averaged weights, mirror images, temperature."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from core.config.settings import ClassifierSettings
from core.models import classifiers, networks
from core.models.trunks import standardise

OURS = ClassifierSettings(
    channels=(4, 8, 16),
    architecture="residual",
    augment=True,
    optimiser="adamw",
    lr=1e-2,
    steps=40,
    batch=32,
    mirror=True,
    dropout=0.2,
)


def seeded(n=0):
    return torch.Generator().manual_seed(n)


def drawn_faces(n=24, size=28, seed=0):
    return torch.rand(n, 1, size, size, generator=seeded(seed)) * 2 - 1


def task(n, seed, contrast=1.0, light=0.0):
    """Two classes: a bright bar that lies or stands, somewhere, in noise."""
    labels = torch.arange(n) % 2
    places = torch.randint(4, 10, (n,), generator=seeded(seed)).tolist()
    x = 0.3 * torch.randn(n, 1, 14, 14, generator=seeded(seed + 1))
    for image, label, k in zip(x[:, 0], labels.tolist(), places, strict=True):
        bar = image.T if label else image
        bar[k, 2:12] += 1.5
    return (contrast * (x / 3) + light).clamp(-1, 1), labels


@pytest.mark.parametrize("size", [14, 28])
def test_augmented_faces_keep_shape_and_range_and_are_drawn_from_the_generator(size):
    x = drawn_faces(size=size)
    before, state = x.clone(), torch.random.get_rng_state()
    out = classifiers.augment_faces(x, seeded(3))
    assert out.shape == x.shape
    assert out.dtype == x.dtype
    assert out.abs().max() <= 1
    assert torch.equal(x, before)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(out, classifiers.augment_faces(x, seeded(3)))
    assert not torch.equal(out, classifiers.augment_faces(x, seeded(4)))
    same = classifiers.augment_faces(x[:1].expand(8, -1, -1, -1), seeded(3))
    assert len({tuple(face.flatten().tolist()) for face in same}) == 8  # each its own draw


def test_half_of_plain_faces_get_a_patch_and_nothing_else():
    out = classifiers.augment_faces(torch.zeros(400, 1, 28, 28), seeded())
    levels = [np.unique(face.numpy().round(5)) for face in out]
    assert {len(v) for v in levels} <= {1, 2}
    assert 0.3 < np.mean([len(v) == 2 for v in levels]) < 0.6  # some lie outside of the picture
    light = out[:, 0].median(dim=1).values.median(dim=1).values
    assert light.abs().max() <= classifiers.MAX_LIGHT


def test_turns_and_shifts_stay_small():
    """The brightest spot of a face moves by a few pixels at most."""
    x = torch.full((200, 1, 28, 28), -0.5)
    x[:, :, 13:15, 13:15] = 1
    out = classifiers.augment_faces(x, seeded())
    places = (out > out.amax(dim=(2, 3), keepdim=True) - 0.2).float()[:, 0]
    rows = (places.sum(dim=2) * torch.arange(28)).sum(dim=1) / places.sum(dim=(1, 2))
    seen = out.amax(dim=(1, 2, 3)) > 0.5  # no patch covers it
    moved = (rows - 13.5).abs()[seen]
    assert moved.median() > 0.2
    assert moved.quantile(0.9) < 4


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_equal_seeds_give_equal_weights_whatever_the_global_randomness(average):
    x, labels = task(64, 0)
    settings = dataclasses.replace(OURS, steps=4, average=average)
    fitted = []
    for seed in (1, 1, 2):
        torch.manual_seed(len(fitted))
        fitted.append(classifiers.fit(x, labels, settings, 2, seed, "face"))
    a, b, c = fitted
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    assert all(torch.equal(p, q) for p, q in pairs)
    assert not torch.equal(a.head.weight, c.head.weight)
    assert not any(m.training for m in a.modules())
    assert torch.equal(a(x), a(x))


def test_an_f_s_of_three_networks_answers_with_the_mean_of_their_logits(tmp_path):
    x, labels = task(64, 0)
    settings, told = dataclasses.replace(OURS, steps=4, networks=3), []
    tick = lambda step, loss: told.append(step)  # noqa: E731
    f_S = classifiers.fit_source(x, labels, settings, 2, 5, "face", tick)
    seeds = [5 + k * classifiers.MEMBER_SEEDS for k in range(3)]
    each = [classifiers.fit(x, labels, settings, 2, seed, "face") for seed in seeds]
    mean = torch.stack([network(x) for network in each]).mean(dim=0)
    assert torch.allclose(f_S(x), mean, atol=1e-5)
    assert told == list(range(1, 13))
    arguments = classifiers.source_arguments(settings, (14, 14), 2)
    networks.save(tmp_path / "f_S.safetensors", f_S, "classifier", arguments)
    loaded = networks.load(tmp_path / "f_S.safetensors")
    o, features = classifiers.outputs(loaded, x)
    assert np.allclose(o, mean.softmax(dim=1).detach(), atol=0.01)  # weights of 16 bits
    assert features.shape == (64, 3 * classifiers.FEATURE_WIDTHS["face"])
    before = loaded(x)
    T = classifiers.apply_temperature(loaded, x, labels)
    assert torch.allclose(loaded(x) * T, before, atol=1e-4)
    one = classifiers.fit_source(x, labels, dataclasses.replace(settings, networks=1), 2, 5)
    assert torch.equal(one(x), each[0](x))


def test_dropout_changes_the_training_and_no_answer_afterwards():
    x, labels = task(64, 0)
    start = classifiers.untrained(OURS, (14, 14), 2, "face", seeded())
    found = []
    for share in (0.0, 0.5):
        settings = dataclasses.replace(OURS, steps=1, lr=0.0, dropout=share, augment=False)
        network = classifiers.fit(x, labels, settings, 2, 0, "face")
        assert torch.equal(network.head.weight, start.head.weight)  # nothing is learnt at rate 0
        steps = classifiers.training_steps(x, labels, settings, 2, 0, "face")
        found.append(next(steps)[2])
        assert torch.equal(network(x), network(x))
    assert not torch.equal(*found)


def test_the_average_is_that_of_the_steps_weights():
    x, labels = task(64, 0)
    settings = dataclasses.replace(OURS, steps=6)
    train = lambda s: classifiers.training_steps(x, labels, s, 2, 5, "face")  # noqa: E731
    start = classifiers.untrained(settings, (14, 14), 2, "face", seeded(5))
    expected = {k: v.clone() for k, v in start.state_dict().items() if v.is_floating_point()}
    for step, network, _ in train(settings):
        decay = min(0.7, (1 + step) / (10 + step))
        now = network.state_dict()
        expected = {k: decay * v + (1 - decay) * now[k] for k, v in expected.items()}
    *_, (_, averaged, _) = train(dataclasses.replace(settings, average=0.7))
    found = averaged.state_dict()
    assert all(torch.allclose(found[k], v, atol=1e-5) for k, v in expected.items())
    assert not torch.allclose(found["head.weight"], network.state_dict()["head.weight"])


def test_a_face_and_its_mirror_image_get_one_answer():
    x = drawn_faces()
    for mirror in (True, False):
        settings = dataclasses.replace(OURS, mirror=mirror)
        arguments = classifiers.arguments(settings, (28, 28), 6, "face")
        network = networks.build("classifier", arguments)
        networks.initialise_weights(network, seeded()).eval()
        o, features = classifiers.outputs(network, x)
        turned, turned_features = classifiers.outputs(network, x.flip(-1))
        assert np.allclose(o, turned, atol=1e-5) == mirror
        assert np.allclose(features, turned_features, atol=1e-5) == mirror
        # the head is linear: its output is the mean of both images' logits
        single = networks.build("classifier", arguments | {"mirrored": False}).eval()
        single.load_state_dict(network.state_dict())
        mean = (single(x) + single(x.flip(-1))) / 2 if mirror else single(x)
        assert torch.allclose(network(x), mean, atol=1e-4)


def test_light_and_contrast_are_gone_and_a_plain_image_has_no_noise():
    x = drawn_faces()
    assert torch.allclose(standardise(x).mean(dim=(2, 3)), torch.zeros(24, 1), atol=1e-5)
    assert torch.allclose(standardise(x), standardise(0.5 * x + 0.2), atol=0.2)
    plain = torch.full((1, 1, 28, 28), 0.3) + 1e-4 * torch.randn(1, 1, 28, 28, generator=seeded())
    assert standardise(plain).abs().max() < 0.02


@pytest.mark.parametrize("shape", [(28, 28), (28, 112), (112, 28), (112, 64), (13, 9)])
def test_the_residual_trunk_takes_every_size(shape, tmp_path):
    arguments = classifiers.arguments(OURS, shape, 6, "face")
    network = networks.initialise_weights(networks.build("classifier", arguments), seeded())
    x = torch.randn(2, 1, *shape, generator=seeded(1))
    network(x)  # moves the batch norm's averages
    networks.save(tmp_path / "f_S.safetensors", network, "classifier", arguments)
    again = networks.load(tmp_path / "f_S.safetensors")
    assert again(x).shape == (2, 6)
    assert (again(x) - network.eval()(x)).abs().max() < 0.05  # half precision
    assert again.penultimate(x).shape[1] == classifiers.FEATURE_WIDTHS["face"]


def test_plain_networks_keep_their_headers():
    plain = classifiers.arguments(ClassifierSettings(mirror=True), (28, 28), 6, "face")
    assert set(plain) == {"shape", "channels", "classes", "features"}
    wide = dataclasses.replace(OURS, width="paper")
    assert "residual" not in classifiers.arguments(wide, (28, 28), 6, "face")


def test_a_temperature_undoes_a_scale_and_is_the_likeliest():
    x = torch.randn(300, 1, 14, 14, generator=seeded())
    network = networks.build("classifier", classifiers.arguments(OURS, (14, 14), 3, "face")).eval()
    networks.initialise_weights(network, seeded(1))
    classes = torch.from_numpy(classifiers.softmax(network, x))
    labels = torch.multinomial(classes, 1, generator=seeded(2))[:, 0]
    weights = 1 / torch.bincount(labels, minlength=3).float()
    order, found = network(x).argmax(dim=1), [classifiers.apply_temperature(network, x, labels)]
    losses = [F.cross_entropy(t * network(x), labels, weight=weights) for t in (0.95, 1.0, 1.05)]
    assert min(losses) == losses[1]
    for scale in (1.0, 0.25, 4.0):  # what is right already stays; a scale is found
        for parameter in network.head.parameters():
            parameter.data *= scale
        found.append(classifiers.apply_temperature(network, x, labels))
    assert found[1:] == pytest.approx([1.0, 0.25, 4.0], rel=1e-3)
    assert torch.equal(network(x).argmax(dim=1), order)
    assert classifiers.apply_temperature(network, x[:0], labels[:0]) == 1


def test_it_learns_more_of_a_small_task_than_the_plain_network():
    """64 images to learn from; the others are darker, and of less contrast."""
    x, labels = task(64, 0)
    new_x, new_labels = task(400, 50, contrast=0.4, light=-0.4)
    plain = ClassifierSettings(channels=(4, 8, 16), steps=40, batch=32, mirror=True)
    right = {}
    for name, settings in {"plain": plain, "ours": OURS}.items():
        network = classifiers.fit(x, labels, settings, 2, 0, "face")
        answers = classifiers.softmax(network, new_x).argmax(axis=1)
        right[name] = (answers == new_labels.numpy()).mean()
    assert right["ours"] > 0.9
    assert right["ours"] > right["plain"] + 0.1
