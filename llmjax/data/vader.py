"""The default data: 10,605 movie-review sentences with human sentiment ratings, out of the vaderSentiment sdist (MIT).

C. J. Hutto and E. Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text",
ICWSM 2014. Each sentence carries the mean of about 20 ratings from -4 (negative) to 4 (positive). The sentences are in
the source distribution only, not in the wheel.
"""

import io
import tarfile
from pathlib import Path

from llmjax.data.files import Rows
from llmjax.packages import Package, fetch

LABEL_NAMES = ("negative", "positive")
EXAMPLES = ("I love this movie.", "I hate this movie.")  # for trying a classifier of such sentences
_INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
_SENTENCES = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
SDIST = Package(
    name="vaderSentiment",
    version="3.3.2",
    archive="vaderSentiment-3.3.2.tar.gz",
    sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    take=(_INNER,),
)


def load_vader(cache: Path | None = None) -> tuple[Rows, int]:
    """Returns the movie-review sentences labelled by the sign of their mean rating, and how many were left out.

    The sdist is fetched by pip on the first use; what is needed of it is kept in `cache` (default `cache_folder()`). A
    sentence whose mean rating is exactly 0 has no sign and is left out. Raises UserError when the sdist can neither be
    found nor fetched.
    """
    folder = fetch(SDIST, "source 'vader_movies'", "use your own data with source 'files'", cache)
    lines = _member((folder / _INNER).read_bytes(), _SENTENCES).decode("utf-8").splitlines()
    rows = [(number, *line.split("\t")[1:]) for number, line in enumerate(lines, start=1)]
    signed = [(number, float(rating), text) for number, rating, text in rows if float(rating) != 0.0]
    return Rows(
        texts=[text for _, _, text in signed],
        labels=[int(rating > 0) for _, rating, _ in signed],
        places=[number for number, _, _ in signed],
        origin=_SENTENCES,
        label_names=LABEL_NAMES,
    ), len(rows) - len(signed)


def _member(archive: bytes, name: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        file = tar.extractfile(name)
        assert file is not None, name
        return file.read()
