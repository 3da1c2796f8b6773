"""This benchmark counts how often cropped faces that stand on their heads are noticed.

A seeded sample of FER2013's faces is looked at as it is and turned by 180 degrees. The variable
FER2013 names its folder or zip.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from core.data import features
from core.data.sources import indexing, media_files
from core.files import ROOT
from core.media.faces import appearance

SAMPLE, SEED = 2_000, 0
ANSWERS = ("yes", "perhaps", "side", "no")
DEFAULT_SOURCE = ROOT.parent / "shared" / "data" / "fer2013_subset.zip"


def rows() -> Iterator[str]:
    source = Path(os.environ.get("FER2013") or DEFAULT_SOURCE)
    entries = indexing.index_clips("fer2013", source)
    chosen = np.random.default_rng(SEED).choice(len(entries), SAMPLE, replace=False)
    found, faces = {"upside down": Counter(), "upright": Counter()}, 0
    for i in sorted(chosen.tolist()):
        content = media_files.read_content(str(entries[i].video))
        crop = features.read_crop(content, entries[i].clip)
        if crop is None or features.crop_is_plain(crop):
            continue
        faces += 1
        found["upright"][appearance.crop_turn(crop)] += 1
        turned = np.ascontiguousarray(crop[::-1, ::-1])
        found["upside down"][appearance.crop_turn(turned)] += 1
    yield f"{faces:,} of {len(entries):,} crops of {source.name}, seed {SEED}:"
    for side, count in found.items():
        shares = [f"{word} {count[word]:,} ({count[word] / faces:.2%})" for word in ANSWERS]
        yield f"  {side}, taken for upside down: {', '.join(shares)}"
