"""XML of strangers to a tree, safely.

The parser loads no DTD, no external entity and nothing from a network, stops at entity bombs and at a
depth of 256, and never repairs: a file that is not well-formed is refused whole, because repairing
drops text without a word. Knows nothing about what is in an article.
"""

from __future__ import annotations

from lxml import etree

from biomistral.corpus.files import UnreadableError


def parse(data: bytes) -> etree._Element:
    """Return the ``article`` element of a file; its namespace, if it has one, is taken off.

    Raises ``UnreadableError`` with reason ``empty``, ``not_well_formed`` or ``not_an_article``.
    """
    if not data.strip():
        raise UnreadableError("empty", "the file has no bytes")
    try:
        root = etree.fromstring(data, _parser())
    except (etree.XMLSyntaxError, ValueError) as error:
        detail = getattr(error, "msg", None) or str(error)
        raise UnreadableError("not_well_formed", detail) from None
    if isinstance(root.tag, str) and root.tag.startswith("{") and root.tag.endswith("}article"):
        _strip_namespace(root)  # as the OAI service of PMC sends them
    if root.tag != "article":
        raise UnreadableError("not_an_article", f"the outermost element is <{root.tag}>")
    return root


def is_faultless(data: bytes) -> bool:
    """Whether the parser reads the whole file without a word; no tree is built.

    What only the making of a tree refuses is not found: texts of more than 10 MB in one place, a
    depth past 256.
    """
    parser = _parser(_Nothing())
    try:
        etree.fromstring(data, parser)
    except (etree.XMLSyntaxError, ValueError):
        return False
    return not len(parser.error_log)


class _Nothing:
    """What the parser builds where it only reads."""

    def close(self) -> None:
        """Do nothing at the end, too."""


def _parser(target: _Nothing | None = None) -> etree.XMLParser:
    return etree.XMLParser(
        target=target,  # type: ignore[arg-type]  # the stubs want one that builds
        resolve_entities="internal",  # type: ignore[arg-type]  # the stubs are older
        load_dtd=False,
        no_network=True,
        huge_tree=False,
        recover=False,
        remove_comments=True,
        remove_pis=True,
    )


def _strip_namespace(root: etree._Element) -> None:
    namespace = str(root.tag)[: -len("article")]
    for element in root.iter(f"{namespace}*"):
        element.tag = str(element.tag)[len(namespace) :]
