"""What belongs beside a classifier's weights: how far its scores are off, and which tokens it was trained on."""

import base64
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Int32

from llmjax.errors import UserError
from llmjax.files import atomic_write

FILE = "calibration.json"
FEW = 30  # labelled texts, with fewer of which no temperature is fitted
LOWEST, HIGHEST = 0.2, 20.0  # of a temperature: texts that are all answered rightly would make it 0

_LARGEST = 1 << 22  # bytes of unpacked token bits: a damaged file must not fill the memory


@dataclass(frozen=True, eq=False)
class Calibration:
    """A classifier's logits are divided by `temperature` before they become probabilities (Guo et al. 2017).

    trained_U: ids of the tokens that the training texts have, ascending; None where that is not known, or the model
        began from weights that know the whole vocabulary.
    """

    temperature: float = 1.0
    trained_U: Int32[np.ndarray, "U"] | None = None

    def apply(self, probs_NC: Float[np.ndarray, "N C"]) -> Float[np.ndarray, "N C"]:
        """Returns the probabilities that logits divided by the temperature give; `probs_NC` are those at 1."""
        return tempered(probs_NC, self.temperature)


def tempered(probs_NC: Float[np.ndarray, "N C"], temperature: float) -> Float[np.ndarray, "N C"]:
    """Returns softmax(logits / temperature) of probabilities that are softmax(logits)."""
    if temperature == 1.0:
        return probs_NC
    logits_NC = np.log(np.maximum(probs_NC, np.finfo(np.float32).tiny)) / temperature
    odds_NC = np.exp(logits_NC - logits_NC.max(axis=-1, keepdims=True))
    return (odds_NC / odds_NC.sum(axis=-1, keepdims=True)).astype(probs_NC.dtype)


def fit_temperature(logits_NC: Float[np.ndarray, "N C"], labels_N: Int[np.ndarray, "N"]) -> float:
    """Returns the temperature of least cross-entropy on held-out texts, within `LOWEST` and `HIGHEST`.

    One number for all classes: it changes no answer. 1 where there are fewer than `FEW` texts. Source: Guo et al. 2017,
    "On Calibration of Modern Neural Networks", section 4.2.
    """
    from scipy.optimize import minimize_scalar  # 0.3 s of every start that does not need it

    if len(labels_N) < FEW:
        return 1.0
    logits_NC = logits_NC.astype(np.float64)
    logits_NC = logits_NC - logits_NC.max(axis=1, keepdims=True)
    true_N = logits_NC[np.arange(len(labels_N)), labels_N]

    def loss(log_temperature: float) -> float:
        scale = np.exp(-log_temperature)
        return float(np.mean(np.log(np.exp(scale * logits_NC).sum(axis=1)) - scale * true_N))

    found: Any = minimize_scalar(loss, bounds=(np.log(LOWEST), np.log(HIGHEST)), method="bounded")
    return round(float(np.exp(found.x)), 4)


def knows_any(
    trained_U: Int32[np.ndarray, "U"], tokens_T: Int32[np.ndarray, "T"], offsets_M: np.ndarray, special: list[int]
) -> Bool[np.ndarray, "N"]:
    """Returns which of N = M - 1 ragged texts have a token, other than the `special` ones, among `trained_U`."""
    known_T = np.isin(tokens_T, trained_U) & ~np.isin(tokens_T, special)
    return np.diff(np.concatenate([[0], np.cumsum(known_T)])[offsets_M]) > 0


def write_calibration(folder: str | Path, calibration: Calibration) -> None:
    """Writes `calibration` beside the weights in `folder`: JSON, the set of tokens as compressed bits in base 64."""
    record: dict[str, Any] = {"temperature": calibration.temperature}
    if calibration.trained_U is not None:
        bits_V = np.zeros(int(calibration.trained_U.max(initial=-1)) + 1, bool)
        bits_V[calibration.trained_U] = True
        record["trained_tokens"] = base64.b64encode(zlib.compress(np.packbits(bits_V).tobytes(), 9)).decode()
    atomic_write(Path(folder) / FILE, json.dumps(record) + "\n")


def read_calibration(folder: str | Path) -> Calibration:
    """Returns what `write_calibration` wrote, or a temperature of 1 where the folder has none.

    Raises:
        UserError: the file is damaged.
    """
    file = Path(folder) / FILE
    if not file.is_file():
        return Calibration()
    try:
        record = json.loads(file.read_text("utf-8"))
        temperature, packed = float(record["temperature"]), record.get("trained_tokens")
        if not LOWEST <= temperature <= HIGHEST:
            raise ValueError(f"a temperature of {temperature}")
        trained_U = None
        if packed is not None:
            data = zlib.decompressobj().decompress(base64.b64decode(packed, validate=True), _LARGEST)
            trained_U = np.flatnonzero(np.unpackbits(np.frombuffer(data, np.uint8))).astype(np.int32)
    except (ValueError, KeyError, TypeError, AttributeError, OSError, zlib.error) as error:
        raise UserError(
            f"{file}: is damaged ({error}); remove it to go on with scores as they come, or train again"
        ) from None
    return Calibration(temperature, trained_U)
