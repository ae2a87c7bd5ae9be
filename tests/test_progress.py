from __future__ import annotations

from biomistral.progress import Progress, ignore


def test_a_plain_function_can_listen() -> None:
    heard: list[tuple[float, float | None, str]] = []

    def listen(done: float, total: float | None, text: str) -> None:
        heard.append((done, total, text))

    def work(progress: Progress) -> None:
        progress(1, 2, "halves")
        progress(2, None, "unknown")

    work(listen)
    work(ignore)
    assert heard == [(1, 2, "halves"), (2, None, "unknown")]
