"""MELD and GoEmotions in their owners' layouts, word errors, and the examples made of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecmf.bundle import SHIPPED
from ecmf.errors import DataError, EcmfError, UsageError
from ecmf.labels import EKMAN
from ecmf.wordpiece import OTHER, WordPiece
from train.datasets.goemotions import EKMAN_GROUPS, EMOTIONS, read_goemotions
from train.datasets.meld import read_meld
from train.text_examples import Loader, from_goemotions, from_meld
from train.word_errors import corrupt, unpunctuated

HEADER = (
    "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime\n"
)
ROWS = (
    '2,"Oh, I see.",Ross,surprise,positive,0,1,8,21,"00:00:01,000","00:00:02,000"\n'
    '1,"Hi, there!",Rachel,joy,positive,0,0,8,21,"00:00:00,000","00:00:01,000"\n'
    "3,Okay.,Ross,neutral,neutral,0,2,8,21,,\n"
)


@pytest.fixture
def meld(tmp_path: Path) -> Path:
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}_sent_emo.csv").write_text(HEADER + ROWS, "utf-8")
    return tmp_path


@pytest.fixture
def goemotions(tmp_path: Path) -> Path:
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}.tsv").write_text(
            'I "love" it\t18,0,13\tabc\nMeh\t27\tdef\nWhat\t6,10\tghi\n', "utf-8"
        )
    return tmp_path


def test_meld_csv_gives_ordered_dialogues(meld: Path) -> None:
    lines = [line for line in read_meld(meld) if line.split == "dev"]
    assert [(x.speaker, x.label, x.text) for x in lines] == [
        ("Rachel", "happiness", "Hi, there!"),
        ("Ross", "surprise", "Oh, I see."),
        ("Ross", "neutral", "Okay."),
    ]


def test_history_is_the_speakers_own_or_marked(meld: Path) -> None:
    last = from_meld(read_meld(meld))[2]
    assert last.own == ("Oh, I see.",)
    assert last.dialogue == (OTHER + "Hi, there!", "Oh, I see.")
    assert last.history("none") == ()


def test_a_new_split_or_dialogue_starts_without_history(meld: Path) -> None:
    firsts = from_meld(read_meld(meld))[::3]
    assert [example.dialogue for example in firsts] == [(), (), ()]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [("joy", "bored", "row 3.*unknown label 'bored'"), (",0,1,", ",0,x,", "row 2.*expected numbers")],
)
def test_meld_errors_name_file_and_row(meld: Path, old: str, new: str, words: str) -> None:
    (meld / "dev_sent_emo.csv").write_text(HEADER + ROWS.replace(old, new), "utf-8")
    with pytest.raises(DataError, match=r"dev_sent_emo\.csv, " + words):
        read_meld(meld)


def test_a_missing_split_is_named(meld: Path) -> None:
    (meld / "test_sent_emo.csv").unlink()
    with pytest.raises(DataError, match=r"test_sent_emo\.csv is missing"):
        read_meld(meld)


def test_goemotions_tsv_groups_and_shares(goemotions: Path) -> None:
    comments = [comment for comment in read_goemotions(goemotions) if comment.split == "train"]
    assert [c.labels for c in comments] == [("happiness",), ("neutral",), ("surprise", "anger")]
    target = from_goemotions(comments)[2].target
    assert target.sum() == 1 and (target > 0).sum() == 2


def test_every_goemotion_has_one_group() -> None:
    members = [name for group in EKMAN_GROUPS.values() for name in group.split()]
    assert sorted(members) == sorted(EMOTIONS) and set(EKMAN_GROUPS) == set(EKMAN)


def test_goemotions_errors_name_file_and_row(goemotions: Path) -> None:
    (goemotions / "dev.tsv").write_text("fine\t1\ta\nbad\t99\tb\n", "utf-8")
    with pytest.raises(DataError, match=r"dev\.tsv, row 2"):
        read_goemotions(goemotions)


def test_parquet_gives_the_same_lines(meld: Path, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    lines = read_meld(meld)
    columns = {
        "split": [x.split for x in lines],
        "dialogue": [x.dialogue for x in lines],
        "utt": [str(x.number) for x in lines],
        "speaker": [x.speaker for x in lines],
        "label": [x.label for x in lines],
        "text": [x.text for x in lines],
    }
    parquet.write_table(pa.table(columns), tmp_path / "meld.parquet")
    assert read_meld(tmp_path / "meld.parquet") == lines


@pytest.mark.parametrize("read", [read_meld, read_goemotions])
def test_nothing_there_is_one_line(read: Callable[[Path], object], tmp_path: Path) -> None:
    (tmp_path / "text.parquet").write_bytes(b"not parquet")
    for path in (tmp_path / "none", tmp_path / "text.parquet"):
        with pytest.raises(EcmfError) as caught:
            read(path)
        assert path.name in str(caught.value) and "\n" not in str(caught.value)


@given(st.text(min_size=1), st.floats(0, 1), st.integers(0, 2**31))
def test_corruption_keeps_a_word_and_repeats_itself(text: str, rate: float, seed: int) -> None:
    made = [corrupt(text, rate, ["noise"], np.random.default_rng(seed)) for _ in range(2)]
    assert made[0] == made[1]
    assert bool(made[0].split()) == bool(text.split())


def test_corruption_rate_is_the_word_error_rate() -> None:
    text = " ".join(f"w{n}" for n in range(20_000))
    for rate in (0.1, 0.3):
        changed = corrupt(text, rate, ["noise"], np.random.default_rng(0)).split()
        kept = [word for word in changed if word != "noise"]
        inserted_or_substituted = len(changed) - len(kept)
        substituted_or_deleted = 20_000 - len(kept)
        assert inserted_or_substituted / 20_000 == pytest.approx(0.75 * rate, rel=0.08)
        assert substituted_or_deleted / 20_000 == pytest.approx(0.75 * rate, rel=0.08)


def test_unpunctuated() -> None:
    assert unpunctuated("Don't! I said: NO...") == "don't i said no"


def test_batches_repeat_with_seed_and_epoch(meld: Path) -> None:
    wordpiece = WordPiece(SHIPPED / "text" / "tokenizer.json")
    loader = Loader(from_meld(read_meld(meld)), wordpiece, batch=4, seed=3)
    first, again, other = ([t.ids.tolist() for t, _ in loader.epoch(n)] for n in (0, 0, 1))
    assert first == again != other
    assert sum(len(ids) for ids in first) == 9


def test_an_unknown_recipe_key_is_named(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from train.text_recipe import RECIPE, read_recipe

    assert read_recipe(RECIPE).stage[-1].data == ("meld",)
    path = tmp_path / "text.toml"
    path.write_text(RECIPE.read_text("utf-8").replace("seed", "sead"), "utf-8")
    with pytest.raises(UsageError, match="unknown key 'sead'"):
        read_recipe(path)
