"""Priors by name and by table, and what they change."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ecmf.bundle import SHIPPED, Bundle, load_bundle
from ecmf.cue import Cue
from ecmf.errors import UsageError
from ecmf.head import FusionHead
from ecmf.labels import EKMAN
from ecmf.prior import is_prior, prior_of

MOSTLY_ANGER = "neutral=0.1,happiness=0.1,sadness=0.1,anger=0.4,fear=0.1,disgust=0.1,surprise=0.1"


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle(SHIPPED / "default")


def test_the_heads_own_prior_changes_nothing(bundle: Bundle) -> None:
    prior = prior_of(bundle)
    assert (prior.shift == 0).all() and prior.probs.sum() == pytest.approx(1)
    assert EKMAN[int(prior.probs.argmax())] == "neutral"


@pytest.mark.parametrize("asked", ["uniform", "webcam", "corpus", MOSTLY_ANGER])
def test_a_prior_has_its_numbers_and_shifts_by_their_ratio(bundle: Bundle, asked: str) -> None:
    prior, own = prior_of(bundle, asked), prior_of(bundle)
    assert prior.probs.sum() == pytest.approx(1)
    np.testing.assert_allclose(np.exp(prior.shift), prior.probs / own.probs, rtol=1e-6)


def test_a_prior_moves_the_estimate_by_exactly_its_ratio_and_the_threshold_with_it(bundle: Bundle) -> None:
    sizes = {port.name: port.shape[-1] for port in bundle.manifest.inputs}
    probs = np.full(7, 0.1, np.float32)
    probs[3] = 0.4
    face = Cue("face", 0, np.zeros(int(sizes["face"]), np.float32), probs, 0, 0, 0.9)
    own, angry = FusionHead(bundle), FusionHead(bundle, prior=MOSTLY_ANGER)
    before, after = own.fuse({"face": face}, 0), angry.fuse({"face": face}, 0)
    assert before is not None and after is not None
    expected = before.probs * np.exp(angry.prior.shift)
    np.testing.assert_allclose(after.probs, expected / expected.sum(), atol=1e-5)
    assert after.probs[3] > before.probs[3]
    if own.abstain_below:
        assert own.abstain_below > own.prior.probs.max()
        assert FusionHead(bundle, prior="uniform").abstain_below < own.abstain_below


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("neutral=1.0", "names each of"),
        (MOSTLY_ANGER.replace("anger=0.4", "anger=0"), "positive number"),
        (MOSTLY_ANGER.replace("anger=0.4", "anger=0.4.4"), "no number"),
        ("gloomy", "expected auto"),
    ],
)
def test_what_is_no_prior_is_named(bundle: Bundle, asked: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        prior_of(bundle, asked)


def test_a_head_that_states_no_corpus_prior_says_what_it_has(bundle: Bundle) -> None:
    extra = {key: value for key, value in bundle.manifest.extra.items() if key not in ("prior", "priors")}
    bare = Bundle(bundle.folder, dataclasses.replace(bundle.manifest, extra=extra))
    assert prior_of(bare).probs == pytest.approx(np.full(7, 1 / 7))
    with pytest.raises(UsageError, match="it has auto, uniform"):
        prior_of(bare, "corpus")


def test_the_form_of_a_prior() -> None:
    assert all(
        is_prior(text) for text in ("auto", "webcam", "corpus", "uniform", MOSTLY_ANGER, "a = 1 , b = 2")
    )
    assert not any(is_prior(text) for text in ("", "a", "a=", "=1", "a=x", "a=1,,b=2"))
