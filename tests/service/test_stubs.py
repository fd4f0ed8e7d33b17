"""The generated code is what the contracts generate."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTRACTS = sorted((ROOT / "protos").rglob("*.proto"))


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda path: path.name)
def test_the_committed_stubs_are_fresh(tmp_path: Path, contract: Path) -> None:
    virtual = Path("service/stubs") / contract.relative_to(ROOT / "protos")
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    protoc = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        f"-Iservice/stubs={ROOT / 'protos'}",
        *outputs,
        str(virtual),
    ]
    subprocess.run(protoc, check=True, cwd=tmp_path)
    generated = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(generated) == 3
    for file in generated:
        assert (ROOT / file.relative_to(tmp_path)).read_text() == file.read_text(), "run make proto"
