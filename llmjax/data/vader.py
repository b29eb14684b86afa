"""The default data: 10,605 movie-review sentences with human sentiment ratings, out of the vaderSentiment sdist (MIT).

C. J. Hutto and E. Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text",
ICWSM 2014. Each sentence carries the mean of about 20 ratings from -4 (negative) to 4 (positive). The sentences are in
the source distribution only, not in the wheel.
"""

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from llmjax.data.files import Rows
from llmjax.errors import UserError
from llmjax.files import cache_folder

SDIST = "vaderSentiment-3.3.2.tar.gz"
SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
LABEL_NAMES = ("negative", "positive")
_INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
_SENTENCES = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"


def load_vader(folder: Path | None = None) -> tuple[Rows, int]:
    """Returns the movie-review sentences labelled by the sign of their mean rating, and how many were left out.

    The sdist is fetched by pip on the first use and kept in `folder` (default `cache_folder()`). A sentence whose mean
    rating is exactly 0 has no sign and is left out. Raises UserError when the sdist can neither be found nor fetched.
    """
    path = _fetch(cache_folder() if folder is None else folder)
    lines = _sentences(path.read_bytes()).decode("utf-8").splitlines()
    rows = [(number, *line.split("\t")[1:]) for number, line in enumerate(lines, start=1)]
    signed = [(number, float(rating), text) for number, rating, text in rows if float(rating) != 0.0]
    return Rows(
        texts=[text for _, _, text in signed],
        labels=[int(rating > 0) for _, rating, _ in signed],
        places=[number for number, _, _ in signed],
        origin=_SENTENCES,
        label_names=LABEL_NAMES,
    ), len(rows) - len(signed)


def _sentences(sdist: bytes) -> bytes:
    inner = _member(sdist, _INNER)
    return _member(inner, _SENTENCES)


def _member(archive: bytes, name: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        file = tar.extractfile(name)
        assert file is not None, name
        return file.read()


def _is_genuine(path: Path) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == SHA256


def _fetch(folder: Path) -> Path:
    target = folder / SDIST
    if _is_genuine(target):
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as temporary:
            reason = _download(Path(temporary))
            if reason:
                raise UserError(
                    f"source 'vader_movies' needs {SDIST} and pip could not fetch it ({reason}): run once with a "
                    f"network, or put that file (SHA-256 {SHA256[:8]}...) at {target}, or use your own data with "
                    "source 'files'"
                )
            os.replace(Path(temporary) / SDIST, target)
    except OSError as error:
        raise UserError(
            f"source 'vader_movies': cannot write the cache folder {folder} ({error.strerror}); "
            "set XDG_CACHE_HOME to a folder that you can write"
        ) from error
    return target


def _download(folder: Path) -> str:
    """Downloads the sdist into `folder` with pip; returns "" or one line that says why not."""
    # pip runs setup.py to read the package's name, so it checks the hash first
    requirements = folder / "requirements.txt"
    requirements.write_text(f"vaderSentiment==3.3.2 --hash=sha256:{SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--retries", "1", "--timeout", "15", "--no-deps", "--no-binary", "vaderSentiment"]
    command += ["--requirement", str(requirements), "--dest", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=300, cwd=folder)
    except subprocess.TimeoutExpired:
        return "no answer in 300 s"
    if _is_genuine(folder / SDIST):
        return ""
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or [f"pip ended with status {done.returncode}"])[-1][:200]
