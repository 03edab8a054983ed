"""Pages of the reference are what their tables say now, and say all of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hyperfleet.api import reference
from hyperfleet.client import reference as sdk

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", reference.PAGES)
def test_a_page_is_its_tables(name: str) -> None:
    written = (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")
    assert written == reference.PAGES[name](), "python -m hyperfleet.api.reference docs/reference"


def test_the_sdks_page_is_its_docstrings() -> None:
    written = (ROOT / "docs/reference/sdk.md").read_text(encoding="utf-8")
    assert written == sdk.page(), "python -m hyperfleet.client.reference docs/reference/sdk.md"


def test_every_error_of_the_data_planes_has_its_row() -> None:
    text = (ROOT / "crates/proxy/src/answer.rs").read_text(encoding="utf-8")

    def body(name: str) -> str:
        return text[text.index(f"pub fn {name}(self)") :].split("\n    }\n")[0]

    codes = {*re.findall(r'=> "([a-z_]+)"', body("code"))}
    page = reference.failures()
    rows = re.findall(r"^\| ([0-9, ]+) \| `([a-z_]+)` \|", page, re.MULTILINE)
    assert codes == {code for _, code in rows}
    shown = {number for numbers, _ in rows for number in numbers.split(", ")}
    assert shown == {*re.findall(r"=> (\d{3})", body("status"))}
