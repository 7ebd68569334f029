"""Distorted pictures: each of the changes, and how far it goes."""

import jax
import jax.numpy as jnp
import numpy as np

from jmrec.tasks.vision import distort


def test_distorted_pictures_are_mirrored_moved_and_scaled() -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 100, (2, 6, 6, 3)).astype(np.uint8)
    still = {"zoom": 0.0, "move": 0.0, "flip": 0.0, "brighten": 0.0}
    mirrored = distort(jax.random.key(0), jnp.asarray(picture), {**still, "flip": 1.0})
    np.testing.assert_allclose(mirrored, picture[:, :, ::-1], atol=1e-3)
    bright = np.asarray(
        distort(jax.random.key(0), jnp.asarray(picture), {**still, "brighten": 0.5})
    )
    factors = bright / np.maximum(picture, 1)
    assert np.ptp(factors[picture > 0].reshape(-1)) > 0
    for one, plain in zip(bright, picture):
        factor = one.sum() / plain.sum()
        assert 0.6 < factor < 1.7
        np.testing.assert_allclose(one, plain * factor, rtol=1e-3)
    # A ramp tells where a pixel comes from: slope 1 / scale, and an offset within the limits.
    ramp = jnp.broadcast_to(jnp.arange(32.0)[None, :, None, None] * 4, (50, 32, 32, 1))
    out = np.asarray(distort(jax.random.key(1), ramp, {**still, "zoom": 0.3, "move": 0.125})) / 4
    slope = (out[:, 17, 16, 0] - out[:, 14, 16, 0]) / 3
    assert np.exp(-0.3) - 1e-3 <= slope.min() < 0.9
    assert 1.1 < slope.max() <= np.exp(0.3) + 1e-3
    middle = (out[:, 15, 16, 0] + out[:, 16, 16, 0]) / 2 - 15.5
    assert 2 < np.abs(middle).max() <= 4 + 1e-3
    assert out.min() >= 0
    assert out.max() <= 31
