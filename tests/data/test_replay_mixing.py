"""Mixing rows of earlier tasks into those of a new one."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from verl_rsim.data.replay_mixing import largest_share, mix, replay_counts
from verl_rsim.utils.artifact_folders import MANIFEST
from verl_rsim.utils.errors import DataError

SHARES = st.floats(0, 0.99)


@given(st.integers(1, 10_000), SHARES, st.integers(1, 8))
def test_the_share_is_met_to_half_a_row_and_split_evenly(new, share, tasks):
    counts = replay_counts(new, share, tasks)
    assert len(counts) == tasks
    assert max(counts) - min(counts) <= 1
    old = sum(counts)
    assert abs(old - share * (old + new)) <= 0.5 + 1e-6 * new


@given(st.integers(1, 1000), st.lists(st.integers(0, 1000), min_size=1, max_size=4))
def test_the_share_that_an_error_proposes_fits_and_the_next_does_not(new, rows):
    share = largest_share(new, rows)

    def fits(value: float) -> bool:
        return all(count <= there for count, there in zip(replay_counts(new, value, len(rows)), rows, strict=True))

    assert fits(share)
    assume(share < 0.99)
    assert not fits(share + 0.01)


@pytest.fixture
def files(tmp_path):
    """Training rows of three tasks with columns of their own."""

    def write(name: str, count: int, **more) -> None:
        rows = [
            {
                "data_source": name,
                "prompt": [{"role": "user", "content": f"{name} {number}"}],
                "reward_model": {"style": "rule", "ground_truth": str(number)},
                "extra_info": {"index": number, **more},
                **more,
            }
            for number in range(count)
        ]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{name}.parquet")

    write("math", 40)
    write("code", 40, ability="code")
    write("finance", 30)
    return {name: tmp_path / f"{name}.parquet" for name in ("math", "code", "finance")}


def test_a_mix_holds_every_new_row_and_whole_old_ones(files, tmp_path):
    old = {name: files[name] for name in ("math", "code")}
    rows = pq.read_table(mix(tmp_path / "mix", files["finance"], old, 0.4, seed=0)).to_pylist()
    assert Counter(row["data_source"] for row in rows) == {"finance": 30, "math": 10, "code": 10}
    assert len({row["prompt"][0]["content"] for row in rows}) == 50, "no row twice"
    assert all(row["reward_model"]["ground_truth"] == str(row["extra_info"]["index"]) for row in rows)
    assert {row["data_source"]: row["ability"] for row in rows} == {"math": None, "finance": None, "code": "code"}
    first = Counter(row["data_source"] for row in rows[:25])
    assert len(first) == 3, "shuffled"


def test_the_same_mix_is_made_once_and_the_same_again(files, tmp_path):
    old = {"math": files["math"]}
    path = mix(tmp_path / "a", files["code"], old, 0.25, seed=1)
    content, changed = path.read_bytes(), path.stat().st_mtime_ns
    assert mix(tmp_path / "a", files["code"], old, 0.25, seed=1).stat().st_mtime_ns == changed
    assert mix(tmp_path / "b", files["code"], old, 0.25, seed=1).read_bytes() == content
    assert mix(tmp_path / "c", files["code"], old, 0.25, seed=2).read_bytes() != content


def test_a_mix_of_something_else_or_a_damaged_one_is_made_anew(files, tmp_path):
    old = {"math": files["math"]}
    path = mix(tmp_path / "a", files["code"], old, 0.25, seed=1)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert mix(tmp_path / "a", files["code"], old, 0.25, seed=1).read_bytes() == whole
    (tmp_path / "a" / MANIFEST).write_text("{")
    assert mix(tmp_path / "a", files["code"], old, 0.25, seed=1).read_bytes() == whole
    assert pq.read_metadata(mix(tmp_path / "a", files["code"], old, 0.5, seed=1)).num_rows == 80


def test_too_few_old_rows_are_named_with_the_share_that_would_do(files, tmp_path):
    old = {"math": files["math"], "finance": files["finance"]}
    with pytest.raises(DataError, match=r"takes 60 of math's training rows, .* has 40: lower replay to 0\.6 at most"):
        mix(tmp_path / "mix", files["code"], old, 0.75, seed=0)
    assert not (tmp_path / "mix").exists()
    mix(tmp_path / "mix", files["code"], old, 0.6, seed=0)


def test_a_share_too_small_for_every_task_is_refused(files, tmp_path):
    with pytest.raises(DataError, match=r"replay=0\.001 of 40 new rows leaves none of math's: raise it"):
        mix(tmp_path / "mix", files["code"], {"math": files["math"]}, 0.001, seed=0)


def test_columns_that_do_not_go_together_are_an_error_with_the_files(files, tmp_path):
    odd = tmp_path / "odd.parquet"
    pq.write_table(pa.Table.from_pylist([{"data_source": "odd", "prompt": "text"}] * 50), odd)
    with pytest.raises(DataError, match=r"odd\.parquet do not fit into one file"):
        mix(tmp_path / "mix", files["code"], {"odd": odd}, 0.5, seed=0)
