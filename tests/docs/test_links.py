"""Links of the documents lead somewhere, and every document is linked to."""

from __future__ import annotations

from pathlib import Path

import pytest

from documents import DOCUMENTS, ROOT, anchors, links, name


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_links_lead_somewhere(document: Path) -> None:
    for link in links(document):
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.is_relative_to(ROOT), f"{link} leads out of the project"
        assert target.exists(), f"{link} leads nowhere"
        if anchor:
            assert anchor in anchors(target), f"{link}: there is no such heading"


def test_every_document_is_in_the_index() -> None:
    index = ROOT / "docs" / "index.md"
    linked = {(index.parent / link.partition("#")[0]).resolve() for link in links(index)}
    documents = {document for document in DOCUMENTS if (ROOT / "docs") in document.parents} - {index}
    assert documents <= linked
