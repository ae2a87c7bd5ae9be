"""Small articles to write tests with; every text here is invented."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

CC_BY = (
    '<license xmlns:xlink="http://www.w3.org/1999/xlink" '
    'xlink:href="https://creativecommons.org/licenses/by/4.0/"/>'
)
PROSE = (
    "The patients of the valley were treated with bark in the morning and the fever that had "
    "been with them for a week was gone by the evening of the second day. "
)


def make_article(
    body: str = f"<p>{PROSE * 3}</p>",
    *,
    title: str = "Bark against valley fever",
    permissions: str = CC_BY,
    pmcid: str = "",
    front: str = "",
    attributes: str = 'article-type="research-article"',
    after: str = "",
) -> bytes:
    """One JATS article as bytes."""
    id_ = f'<article-id pub-id-type="pmcid">{pmcid}</article-id>' if pmcid else ""
    return (
        f"<article {attributes}><front><journal-meta><journal-title-group><journal-title>Annals of "
        "Bark</journal-title></journal-title-group></journal-meta>"
        f"<article-meta>{id_}<title-group><article-title>{title}</article-title></title-group>"
        f"<permissions>{permissions}</permissions>{front}</article-meta></front>"
        f"<body>{body}</body>{after}</article>"
    ).encode()


@pytest.fixture
def article() -> Callable[..., bytes]:
    return make_article


@pytest.fixture
def prose() -> str:
    return PROSE


@pytest.fixture
def articles_folder(tmp_path: Path) -> Path:
    """Nine files: five to keep (one with a translation), four to drop for four reasons."""
    folder = tmp_path / "pmc"
    (folder / "deep").mkdir(parents=True)
    texts = {
        f"deep/{n}.xml": make_article(
            f"<p>{PROSE * 2}</p><sec><title>Methods</title><p>Village {n}. {PROSE * n}</p></sec>",
            pmcid=f"PMC{n}",
        )
        for n in range(1, 5)
    }
    texts["5.nxml"] = make_article(
        f"<p>{PROSE * 2} The end.</p>",
        pmcid="PMC5",
        attributes='article-type="research-article" xml:lang="en"',
        after='<sub-article article-type="translation" xml:lang="pt"><front-stub><title-group>'
        "<article-title>Casca contra a febre</article-title></title-group></front-stub><body><p>"
        + "Os doentes do vale foram tratados com casca de manhã e a febre passou à noite. " * 5
        + "</p></body></sub-article>",
    )
    texts["6-broken.xml"] = b"<article><front>"
    texts["7-short.xml"] = make_article("<p>Too short.</p>", pmcid="PMC7")
    texts["8-copy.xml"] = make_article(
        f"<p>{PROSE.upper() * 2}  The end.</p>", title="BARK against valley  fever", pmcid="PMC8"
    )
    texts["9-nc.xml"] = make_article(
        permissions="<license><license-p>CC BY-NC</license-p></license>"
    )
    for name, data in texts.items():
        (folder / name).write_bytes(data)
    return folder
