import json

import pytest

from models.bundle import bundle, untrained_source
from models.errors import InvalidValueError
from models.networks import describe
from models.preprocessing import standard_preprocessing

NETWORK = describe("sknet50", classes=3, width=1 / 16)
PREPROCESSING = standard_preprocessing(32)


def test_the_manifest_keeps_each_list_of_scores_on_one_line() -> None:
    files = bundle(NETWORK, untrained_source(NETWORK, 1), labels=["a", "b", "c"], preprocessing=PREPROCESSING)
    text = files["model.json"].decode()
    scores = [line for line in text.splitlines() if '"scores": [' in line]
    samples = json.loads(text)["golden"]["samples"]
    assert [json.loads(f"{{{line}}}")["scores"] for line in scores] == [
        sample["scores"] for sample in samples
    ]
    assert text.startswith('{\n  "format": 1,\n  "network": {\n    "name": "sknet50",\n')
    assert text.endswith("\n}\n")


def test_labels_that_are_not_as_many_as_classes_are_refused() -> None:
    with pytest.raises(InvalidValueError, match="labels are 2; allowed are as many as classes, 3"):
        bundle(NETWORK, untrained_source(NETWORK, 1), labels=["a", "b"], preprocessing=PREPROCESSING)
