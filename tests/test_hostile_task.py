"""Task files that are odd in a single way: spellings, versions, sizes (SPEC 3.1, 5.2, 9.1)."""

import re
import tracemalloc

import pytest
from fuzz.odd import SPELLINGS
from fuzz.seeds import seeds
from hostile import Parts, canonical, frame, least_budget, put_together, take_apart
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsetv.container.limits import Limits
from sparsetv.container.reader import decode, open_bytes
from sparsetv.errors import FormatError


@pytest.mark.parametrize("spelling", SPELLINGS, ids=lambda text: str(text[:20]))
@pytest.mark.parametrize("key", [b'"density":', b'"localizer":', b'"scale":', b'"bias":', b'"count":'])
def test_odd_spellings_are_refused(spelling: bytes, key: bytes) -> None:
    """Valid or not as JSON, none is canonical; floats that overflow and lone surrogates included (SPEC 3.1)."""
    parts = take_apart(seeds()[0])
    text = re.sub(key + rb'("[^"]*"|[0-9.e+-]+)', lambda _: key + spelling, canonical(parts.manifest), count=1)
    if text == canonical(parts.manifest):
        pytest.skip("this is how it is spelled")
    with pytest.raises(FormatError, match=r"\S+"):
        decode(open_bytes(put_together(parts, text=text)))


@pytest.mark.parametrize("version", ["1.1", "1.27"])
def test_a_greater_minor_version_is_read(version: str) -> None:
    """SPEC 9.1."""
    parts = take_apart(seeds()[0])
    data = put_together(Parts({**parts.manifest, "version": version}, parts.stored, version))
    assert decode(open_bytes(data)).digest() == parts.manifest["digest"]


@pytest.mark.parametrize("version", ["2.0", "10.1", "1", "1.", "1.x", "x", "", "1.0.0", "-1.0", "\u0661.0"])
def test_other_versions_are_refused(version: str) -> None:
    parts = take_apart(seeds()[0])
    with pytest.raises(FormatError, match=r"version|header"):
        open_bytes(put_together(Parts({**parts.manifest, "version": version}, parts.stored, version)))


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match=r"task file: "):
        decode(open_bytes(data))


@pytest.mark.parametrize("shift", [0, 8, 40, 62])
def test_decoding_stays_within_the_memory_that_the_manifest_implies(shift: int) -> None:
    """A frame of zeros costs nothing to send; what it decodes to must fit the limit that was checked before."""
    entries, kept = 2**61, 200_000
    parts = take_apart(seeds()[2])
    low = bytes((kept * shift + 7) // 8)
    streams = [frame(bytes(kept)), frame(low) if low else b""]
    signs, planes = frame(bytes((kept + 7) // 8)), frame(bytes(kept))
    values = [signs, planes, planes, planes, planes, b"", b""]
    parts.manifest["base"] |= {"names": ["a"], "dtypes": ["F32"], "shapes": [[entries]], "tags": "0" * 8}
    parts.manifest.update({"scope": [[0, 1]], "tensors": {"l1": [1.0], "l2": [1.0]}, "extras": [], "files": []})
    parts.manifest["finetuned"] |= {"missing": [], "outside": []}
    positions = {"codec": "gaps", "frames": [len(item) for item in streams], "high_size": kept, "shifts": [shift]}
    exact = {"codec": "exact", "frames": [len(item) for item in values], "bias": 0, "corrections": 0, "gap_size": 0}
    parts.manifest["blocks"] = [{"pieces": [0, [kept]], "positions": positions, "values": exact}]
    stored = {"sparsetv.positions": b"".join(streams), "sparsetv.values": b"".join(values)}
    data = put_together(Parts(parts.manifest, stored))
    allowed = least_budget(data)
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match="content digest"):
            decode(open_bytes(data, limits=Limits(allowed)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= allowed + (1 << 20)
