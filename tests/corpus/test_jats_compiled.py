"""What the compiled walk reads is what the walk in Python reads, of every file."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from biomistral.corpus import compiled, jats_compiled
from biomistral.corpus.files import UnreadableError
from biomistral.corpus.jats import read_article
from biomistral.corpus.jats_compiled import read_compiled

pytestmark = pytest.mark.skipif(compiled.jats_library() is None, reason="no C compiler")

MATH = "http://www.w3.org/1998/Math/MathML"
# A little of everything that the walk knows, invented.
EVERYTHING = f"""<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE article PUBLIC "-//NLM//DTD JATS//EN" "JATS.dtd">
<!-- a comment --><article xmlns:m="{MATH}" xmlns:x="http://www.w3.org/1999/xlink" xml:lang="en">
<front><article-meta><article-id pub-id-type="pmcid">PMC7</article-id><title-group><article-title>Bark
 &amp; <italic>fever</italic></article-title></title-group><abstract><p>To heal.</p></abstract>
</article-meta></front><body><sec id="s1"><label>1</label><title>Methods</title><p>In <italic>B.
 <bold>va</bold>llis</italic> &lt;5 &#956;g [<xref ref-type="bibr" rid="b1">1</xref>,<xref
 ref-type='bibr'>2</xref>–<xref>4</xref>] (see <xref ref-type="">Silva &#x41;., 2001</xref>; <xref
 ref-type="fig">Fig. 2</xref>)<xref ref-type="fn">*</xref>.<!-- no --><?go on?> 10<sup>6</sup>,
 10<sup> − 4 </sup>; Ca<sup>2+</sup><break/>H<sub>2</sub>O<![CDATA[ <b>&amp; ]]>raw.</p>
<list><list-item><label>a</label><p>boiled</p></list-item><list-item><p>raw<fn><p>note</p></fn></p>
</list-item></list>tail<def-list><def-item><term>AB</term><def><p>a bark</p></def></def-item><def-item>
<term>C</term><def><p>d</p><p>e</p></def></def-item></def-list></sec><fig><caption><p>Leaf</p></caption></fig>
<p>so <inline-formula><m:math><m:mi> p </m:mi><m:mtext> is </m:mtext><m:msup><m:mn>10</m:mn><m:mn>6</m:mn>
</m:msup><m:mspace/></m:math></inline-formula> and <inline-formula><m:math><m:mfrac><m:mi>a</m:mi></m:mfrac>
</m:math></inline-formula>, <inline-formula><alternatives><tex-math>x</tex-math></alternatives>
</inline-formula>, <inline-formula>n<sup>2</sup> = <math xmlns="{MATH}"><mn>5</mn></math></inline-formula>
 <m:math><m:mi>z</m:mi></m:math> é e\u0301 🩺 病\u00ad\u2009.\r\nEnd\r.</p><sec sec-type="COI-statement"><p>x</p></sec>
<sec><title>2. Authors’ contributions<xref ref-type="fn">1</xref></title><p>All.</p></sec>
<preformat preformat-type="pmc-ocr-text">s c a n</preformat></body><back><ack><p>Thanks.</p></ack><ref-list>
<ref/></ref-list></back><floats-group><fig/></floats-group><sub-article article-type="translation"
 xml:lang="pt"><front-stub/><body><p>Corpo.</p></body></sub-article><response><body/></response></article>
"""
PIECES = [
    *re.findall(r"<[^>]+>|&[#\w]+;|[^<&]+", EVERYTHING),
    *("&bark;", "&#0;", "&#xD800;", "<", ">", "&", '"', "'", "]]>", "<![CDATA[", "-->", "<!--", "\x00"),
    *("<p>", "</p>", "<sup>", "</sup>", "<article>", "<body>", "</body>", "<back/>", "<sub-article>"),
    *(' xmlns="urn:x"', ' xmlns:m="urn:x"', ' ref-type="a&#9;b"', " xml:id='1'", ' sec-type="&amp;"'),
    *("<j:p/>", "<a:b:c/>", "<?p:q?>", "<!DOCTYPE article [<!ENTITY bark 'b'>]>", "<sec>" * 140, "\u1680"),
    *("<?xml version='1.0' encoding='latin-1'?>", "<title>Funding</title>", "𝟏", "٣", "\t"),
]  # fmt: skip


def read(data: bytes, keep: tuple[str, ...] = ()) -> object:
    try:
        return read_article(data, "k", None, keep)
    except UnreadableError as error:
        return (error.reason, error.detail)


def read_in_python(data: bytes, keep: tuple[str, ...] = ()) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jats_compiled, "jats_library", lambda: None)
        return read(data, keep)


@pytest.mark.parametrize("keep", [(), ("citations",), ("captions",)])
def test_an_article_with_everything_reads_alike(keep: tuple[str, ...]) -> None:
    data = EVERYTHING.encode()
    assert (read_compiled(data, keep) is None) == (keep == ("captions",))
    assert read(data, keep) == read_in_python(data, keep)
    assert "10^6, 10− 4; Ca2+ H2O" in str(read(data, keep))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("<article ", '<article xmlns="https://jats.nlm.nih.gov/ns/archiving/1.3/" '),
        ("<article ", f'<article xmlns="{MATH}" '),
        ("<article ", '<article xmlns="urn:home" xmlns:h="urn:home" '),
        ("UTF-8", "utf-8"),
        ("UTF-8", "us-ascii"),
        (' encoding="UTF-8"', ""),
        ("<?xml", "\ufeff<?xml"),
        ("<body>", "<body ref-type='fn'>"),
        ("raw.</p>", "raw.</p>" + "<sec>" * 100 + "deep" + "</sec>" * 100),
        ("raw.</p>", "raw.</p><body><p>inner</p></body>"),
        ("<ref/>", "<response><body><p>hidden</p></body></response>"),
        ("<ref/>", "<preformat preformat-type='pmc-ocr-text'/>"),
        ("<ref/>", "<p xml:id='1 2'/>"),
    ],
)
def test_a_change_reads_alike(old: str, new: str) -> None:
    assert old in EVERYTHING
    data = EVERYTHING.replace(old, new).encode()
    assert read(data) == read_in_python(data)


def test_any_damage_reads_alike() -> None:
    rng = random.Random(11)
    num_read = 0
    for _ in range(1500):
        text = EVERYTHING
        for _ in range(rng.choice([1, 1, 2, 5])):
            place, size = rng.randrange(len(text)), rng.choice([0, 0, 0, 1, 2, 20])
            if rng.random() < 0.6:  # between two tags, where it may remain well-formed
                place = text.find(">", place) + 1
            text = text[:place] + rng.choice([*PIECES, ""]) + text[place + size :]
        data = text.encode()
        found = read(data)
        num_read += isinstance(found, list)
        assert found == read_in_python(data), text
    assert num_read > 150


@pytest.mark.parametrize(
    "data",
    [
        b"<article><body><p>&bark;</p></body></article>",
        b'<!DOCTYPE article [<!ENTITY b "c">]><article><body><p>&b;</p></body></article>',
        b'<?xml version="1.0" encoding="iso-8859-1"?><article><body/></article>',
        "<article><body/></article>".encode("utf-16"),
        b"<article>" + b"<sec>" * 130 + b"</sec>" * 130 + b"</article>",
        b"<html><body/></html>",
        b"<article><body><p>half",
        b"<article><body><q:p/></body></article>",
        b"",
    ],
)  # fmt: skip
def test_what_is_not_plain_is_left_to_the_parser(data: bytes) -> None:
    assert read_compiled(data) is None


def test_all_real_articles_are_read_by_the_loops_alike(real_data: Path) -> None:
    paths = sorted(p for p in (real_data / "jats").iterdir() if p.suffix in {".xml", ".nxml"})
    for path in paths[::7]:
        data = path.read_bytes()
        if not path.name.startswith("malformed"):
            assert read_compiled(data) is not None, path.name
        assert read(data) == read_in_python(data), path.name
