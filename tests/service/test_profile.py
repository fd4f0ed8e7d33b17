import pytest

from service.batching import Demanded
from service.engines import Curve
from service.latency_tables import TABLES
from service.profile import NoProfile, drawn, fetch
from service.rest.profiles import profile_of

CURVE = Curve.exact(TABLES["310p/se_resnext50"])


def profile(demanded: Demanded) -> dict[str, object]:
    return {"device": "ascend:0", "engine": "pretended"} | profile_of(CURVE, demanded, demanded.tuned())


def test_the_curve_is_drawn_with_what_is_used_and_why_the_rest_is_not() -> None:
    loaded = profile(Demanded(curve=CURVE, rate=2500, deadline_s=0.05))
    text = drawn({"name": "cats", "version": "3", "reason": "", "profiles": [loaded]})
    assert text.splitlines() == [
        "cats version 3 on ascend:0, pretended",
        "  gear    p50 ms    p99 ms  images/s",
        "     1    0.9936    0.9936      1006  ###############",
        "     4     2.216     2.216      1805  ###########################",
        "     8     5.306     5.306      1508  #######################         not used: 4+4 takes 4.432 ms",
        "    16     11.46     11.46      1396  #####################           not used: 4+4+4+4 takes 8.865 ms",
        "    32     15.99     15.99      2002  ##############################",
        "    64      53.4      53.4      1198  ##################              not used: 32+32 takes 31.97 ms",
        "tuned to 2500 images/s within 50 ms: a long line is run 32 at a time",
    ]


def test_a_model_that_is_not_loaded_has_no_profile() -> None:
    with pytest.raises(NoProfile, match="cats version 3 has not been measured: it is being loaded"):
        drawn({"name": "cats", "version": "3", "reason": "it is being loaded"})


@pytest.mark.parametrize("server", ["127.0.0.1:8000", "ftp://127.0.0.1", "file:///etc"])
def test_an_address_that_is_none_is_refused(server: str) -> None:
    with pytest.raises(NoProfile, match="an address such as http"):
        fetch(server, "cats")
