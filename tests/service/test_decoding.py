import pytest

from patience import PATIENCE_S
from pictures import encoded, photo
from service.decoding import Decoder
from service.errors import InvalidInput
from service.images import Preprocessing
from service.tensors import Rows

pytestmark = pytest.mark.anyio

SPEC = Preprocessing(mode="shortest", size=64, crop=64, interpolation="bilinear", antialias=True)


async def test_how_long_a_picture_will_take_is_foreseen_from_those_before() -> None:
    decoder = Decoder(threads=2, max_pixels=1_000_000)
    picture = encoded(photo(600, 600, 1))
    assert decoder.foreseen_s(len(picture)) == 0
    during: list[float] = []

    def keep(_place: int, _outcome: Rows | InvalidInput) -> None:
        during.append(decoder.foreseen_s(0))

    await decoder.decode([picture] * 4, SPEC, keep)
    alone_s = decoder.foreseen_s(len(picture))
    assert 0 < alone_s < PATIENCE_S
    assert during[-1] == pytest.approx(4 * alone_s)  # all of a request count until it is through
    assert decoder.foreseen_s(0) == 0
    assert decoder.foreseen_s(10 * len(picture)) == pytest.approx(10 * alone_s)
