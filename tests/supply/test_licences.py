"""The licence check accepts the locked packages, and refuses a package that must not be shipped."""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path

import pytest

from tools.licences import is_allowed, main

ROOT = Path(__file__).parents[2]
SITE = next(Path(folder) for folder in sys.path if folder.endswith("site-packages"))


def planted(folder: Path, metadata: str) -> list[str]:
    """Returns the arguments for a lock and an environment with one package."""
    (folder / "site" / "planted-1.dist-info").mkdir(parents=True)
    text = f"Metadata-Version: 2.4\nName: planted\nVersion: 1\n{metadata}\n"
    (folder / "site" / "planted-1.dist-info" / "METADATA").write_text(text)
    (folder / "lock.txt").write_text("planted==1 \\\n    --hash=sha256:0\n")
    return [str(folder / "lock.txt"), str(folder / "site")]


def test_the_programs_packages_are_allowed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(ROOT / "requirements.txt"), str(SITE)]) == 0
    assert re.search(r"^pulumi [\d.]+: Apache-2\.0$", capsys.readouterr().out, re.M)


@pytest.mark.parametrize(
    "metadata",
    [
        "License-Expression: AGPL-3.0-only",
        "License-Expression: MIT AND GPL-2.0-or-later",
        "Classifier: License :: OSI Approved :: GNU General Public License v3 (GPLv3)",
        "License: Proprietary",
        "",
    ],
)
def test_a_planted_package_is_refused(
    metadata: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(planted(tmp_path, metadata)) == 1
    assert "planted 1" in capsys.readouterr().err


def test_one_allowed_alternative_is_enough() -> None:
    assert is_allowed("GPL-2.0-only OR MIT")


def test_an_empty_environment_is_refused(tmp_path: Path) -> None:
    assert main([str(ROOT / "requirements.txt"), str(tmp_path)]) == 1


def test_the_licence_is_apaches_own_text() -> None:
    for file in ("LICENSE", "sample_client/google_login/LICENSE"):
        digest = hashlib.sha256((ROOT / file).read_bytes()).hexdigest()
        assert digest == "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
    for folder in (".", "image", "sample_client/google_login"):
        assert 'license = "Apache-2.0"' in (ROOT / folder / "pyproject.toml").read_text()
