"""The model's hand-written derivatives against numeric differences, on a tiny model in float64."""

import numpy as np
import pytest

from tools.demo_model.model import Batch, Llama, Shape

TINY = Shape(vocabulary=11, width=8, layers=2, heads=2, inner=12, context=16)
STEP = 1e-5
PROBES = 6


@pytest.fixture(scope="module")
def model() -> Llama:
    model = Llama.random(TINY, seed=3, dtype=np.float64)
    rng = np.random.default_rng(4)
    for value in model.parameters.values():
        # Far from the small start values, where errors in the products would hide below the tolerance.
        value += rng.normal(0, 0.3, value.shape)
    return model


@pytest.fixture(scope="module")
def batch() -> Batch:
    rng = np.random.default_rng(5)
    labels = rng.integers(0, TINY.vocabulary, (3, 8)).astype(np.int32)
    labels[0, 5:] = -1
    labels[2, :3] = -1
    ids = rng.integers(0, TINY.vocabulary, (3, 8)).astype(np.int32)
    positions = np.sort(rng.permuted(np.tile(np.arange(TINY.context, dtype=np.int32), (3, 1)), axis=1)[:, :8], axis=1)
    return Batch(ids, positions, labels, rng.uniform(0.1, 2, (3, 8)).astype(np.float32))


NAMES = sorted(Llama.random(TINY, seed=0).parameters)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_equals_the_numeric_difference(model: Llama, batch: Batch, name: str) -> None:
    _, grads = model.gradients(batch)
    flat = model.parameters[name].reshape(-1)
    for place in np.random.default_rng(6).choice(flat.size, min(PROBES, flat.size), replace=False):
        kept = float(flat[place])
        flat[place] = kept + STEP
        above = model.loss(batch)
        flat[place] = kept - STEP
        below = model.loss(batch)
        flat[place] = kept
        assert grads[name].reshape(-1)[place] == pytest.approx((above - below) / (2 * STEP), rel=1e-5, abs=1e-8)


def test_every_parameter_has_a_gradient_of_its_shape(model: Llama, batch: Batch) -> None:
    loss, grads = model.gradients(batch)
    assert loss == pytest.approx(model.loss(batch))
    assert {name: grad.shape for name, grad in grads.items()} == {n: p.shape for n, p in model.parameters.items()}


def test_the_future_is_not_seen(model: Llama, batch: Batch) -> None:
    changed = batch.ids.copy()
    changed[:, -1] = (changed[:, -1] + 1) % TINY.vocabulary
    early = batch.labels.copy()
    early[:, -1] = -1
    expected = model.loss(batch._replace(labels=early))
    assert model.loss(batch._replace(ids=changed, labels=early)) == pytest.approx(expected)


def test_only_distances_between_positions_matter(model: Llama, batch: Batch) -> None:
    near = np.broadcast_to(np.arange(8, dtype=np.int32), batch.ids.shape)
    expected = model.loss(batch._replace(positions=near))
    assert model.loss(batch._replace(positions=near + 5)) == pytest.approx(expected)
    assert model.loss(batch._replace(positions=near * 2)) != pytest.approx(expected)


def test_padding_on_the_right_changes_nothing(model: Llama, batch: Batch) -> None:
    wider = [
        np.pad(part, ((0, 0), (0, 4)), constant_values=fill) for part, fill in zip(batch, (0, 0, -1, 0), strict=True)
    ]
    assert model.loss(Batch(*wider)) == pytest.approx(model.loss(batch))


def test_the_same_seed_gives_the_same_model_and_survives_a_file(
    model: Llama, tmp_path_factory: pytest.TempPathFactory
) -> None:
    again = Llama.random(TINY, seed=3)
    assert all(np.array_equal(value, again.parameters[n]) for n, value in Llama.random(TINY, seed=3).parameters.items())
    path = tmp_path_factory.mktemp("model") / "model.npz"
    model.save(path)
    loaded = Llama.load(path)
    assert loaded.shape == TINY
    assert all(np.array_equal(value, loaded.parameters[name]) for name, value in model.parameters.items())
