from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srgan_infer.engine.plan import cut


@given(
    length=st.integers(1, 10_000),
    size=st.integers(1, 3_000),
    halo=st.integers(0, 60),
    data=st.data(),
)
def test_pieces_cover_the_length_once_and_read_their_halo(
    length: int, size: int, halo: int, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, length - 1))
    spans = cut(length, size, halo, start)
    assert spans[0].start == start
    assert spans[-1].stop == length
    assert all(one.stop == two.start for one, two in pairwise(spans))
    sizes = [span.stop - span.start for span in spans]
    assert max(sizes) <= size
    assert max(sizes) - min(sizes) <= 1
    for span in spans:
        assert span.first == max(0, span.start - halo)
        assert span.last == min(length, span.stop + halo)


def test_a_core_is_found_in_what_was_read_and_in_the_result() -> None:
    span = cut(100, 25, 10)[1]
    assert span.length == 45
    assert span.crop(4) == slice(40, 140)
    assert span.upscaled(4) == slice(100, 200)


@pytest.mark.parametrize(
    ("length", "size", "halo", "start"), [(0, 1, 0, 0), (5, 0, 0, 0), (5, 1, -1, 0), (5, 1, 0, 5)]
)
def test_nothing_to_cut_is_an_error(length: int, size: int, halo: int, start: int) -> None:
    with pytest.raises(ValueError, match="cannot cut"):
        cut(length, size, halo, start)
