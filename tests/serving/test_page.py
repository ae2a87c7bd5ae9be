"""The chat page in a real browser, with a real (small, trained) model behind it."""

from __future__ import annotations

from pathlib import Path

import pytest

from biomistral.advisory import ADVISORY
from biomistral.models.calibrations import SavedFit
from biomistral.records import Question, Task
from biomistral.serving.app import PAGE
from biomistral.serving.calibrating import Calibration
from biomistral.serving.panel import Panel

KEY = "a-key-of-some-length"
SCRIPT = "<img src=x onerror=\"document.title='broken in'\"><script>alert(1)</script>"
FITS = tuple(
    SavedFit("medical", ("herbs",), code, "letter", 0, 3.0, 0.7, 0.2, 50, "test")
    for code in ("en", "ar")
)
READY = "document.documentElement.dataset.ready"
ASKED = "!document.getElementById('weigh').disabled && document.querySelector('.choice .bar')"
# How much darker or lighter text is than what is behind it (WCAG 2.2, contrast ratio).
CONTRAST = """(() => {
  const light = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map(Number).map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const colour = getComputedStyle(each).backgroundColor;
      if (!/, 0\\)$|transparent/.test(colour)) return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  const poor = [];
  for (const element of document.querySelectorAll('p, dd, dt, label, button, summary, span, h1, small')) {
    const text = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!text || !element.checkVisibility() || element.closest(':disabled, .bar, .hidden')) continue;
    const [a, b] = [light(getComputedStyle(element).color), light(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push(`${element.tagName} ${element.textContent.slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return poor;
})()"""


def _questions(code: str, stem: str) -> list[Question]:
    return [
        Question(f"{n}", "herbs", code, "test", f"{stem} {n}", (SCRIPT, "water", "rest"), 2)
        for n in (1, 2, 3)
    ]


@pytest.fixture(scope="module")
def panel() -> Panel:
    asked = {
        ("herbs", "en"): _questions("en", f"What treats fever? {SCRIPT}"),
        ("herbs", "ar"): _questions("ar", "ما الذي يعالج الحمى؟"),
    }
    return Panel([Task("herbs", SCRIPT, "medical", "", "")], asked, {})


@pytest.fixture(scope="module")
def page(start_server, opened, panel):
    with start_server(opened, Calibration(Path("c"), FITS), panel, ui=True) as found:
        yield f"{found.base}/"


def _text(browser, selector: str) -> str:
    return browser.run(f"document.querySelector({selector!r}).textContent")


def _value(browser, name: str, value: str) -> None:
    field = f"document.querySelector('[name={name}]')"
    browser.run(
        f"{field}.value = {value!r}; {field}.dispatchEvent(new Event('input', {{bubbles: true}}))"
    )


def test_a_question_is_asked_and_answered_with_the_keyboard_alone(browser, page) -> None:
    browser.open(page)
    browser.wait(READY)
    _value(browser, "temperature", "0")
    assert "temperature 0" in _text(browser, "#settings-shown")
    browser.type("fever?")  # the field has the focus from the start
    browser.press("Enter")
    browser.wait("document.querySelector('.message.assistant .cost')")
    assert "treated with bark and rest" in _text(browser, ".message.assistant .said")
    assert "tokens" in _text(browser, ".message.assistant .cost")
    assert browser.run("document.activeElement.id") == "text"
    assert browser.complaints == []


def test_model_settings_and_advisory_are_in_sight(browser, page) -> None:
    for width, height in ((1200, 900), (390, 844), (320, 568)):
        browser.open(page, width, height)
        browser.wait(READY)
        assert _text(browser, "#model-name") == "valley"
        assert "512 tokens" in _text(browser, "#model-facts")
        assert "up to 256 tokens" in _text(browser, "#settings-shown")
        assert ADVISORY in _text(browser, "#advisory")
        for view in ("chat", "benchmark"):
            browser.run(f"document.getElementById('tab-{view}').click()")
            box = "document.getElementById('advisory').getBoundingClientRect()"
            assert browser.run(f"{box}.top") == 0
            assert browser.run(f"{box}.height") > 20
            # Nothing is wider than the screen.
            assert browser.run("document.documentElement.scrollWidth") <= width


def test_an_answer_can_be_stopped_and_frees_its_place(browser, page) -> None:
    browser.open(page)
    browser.wait(READY)
    for name, value in (("temperature", "5"), ("top_p", "1"), ("max_tokens", "400")):
        _value(browser, name, value)
    for attempt in range(5):  # a short answer may be over before it is stopped
        browser.type("fever?")
        browser.press("Enter")
        browser.wait("!document.getElementById('stop').hidden")
        browser.press("Escape") if attempt % 2 else browser.run(
            "document.getElementById('stop').click()"
        )
        browser.wait("document.getElementById('stop').hidden")
        if "stopped" in _text(browser, ".message:last-child"):
            break
    assert "stopped" in _text(browser, ".message:last-child .cost")
    browser.wait("fetch('/health').then((r) => r.json()).then((h) => h.running === 0)")


def test_a_conversation_that_outgrows_the_context_leaves_its_beginning_out(browser, page) -> None:
    browser.open(page)
    browser.wait(READY)
    for name, value in (("temperature", "0"), ("max_tokens", "300")):
        _value(browser, name, value)
    for number in range(1, 5):
        browser.type("the fever of the river valley is treated with bark " * 8)
        browser.press("Enter")
        browser.wait(f"document.querySelectorAll('.message.assistant .cost').length === {number}")
    assert browser.run("document.querySelectorAll('.fault').length") == 0
    assert "messages no longer fit" in _text(browser, ".message:last-child")


@pytest.mark.parametrize("code", ["en", "ar"])
def test_the_panel_shows_prompt_bars_and_the_right_answer(browser, page, code) -> None:
    browser.open(f"{page}#benchmark", 390, 844)
    browser.wait(READY)
    browser.run(
        f"(() => {{ const l = document.getElementById('language'); l.value = {code!r};"
        "l.dispatchEvent(new Event('change')); })()"
    )
    browser.wait(f"document.getElementById('question').lang === {code!r}")
    browser.run("document.getElementById('next').click()")
    browser.wait("document.getElementById('number').value === '2'")
    browser.wait("!document.getElementById('weigh').disabled")
    browser.run("document.getElementById('weigh').click()")
    browser.wait(ASKED)
    numbers = browser.run(
        "[...document.querySelectorAll('.choice .number')].map((e) => e.textContent)"
    )
    shown = [float(text.removesuffix(" %")) for text in numbers]
    assert sum(shown) == pytest.approx(100, abs=0.2)
    browser.wait("document.getAnimations().length === 0")
    shares = browser.run(
        "[...document.querySelectorAll('.choice .bar')].map((bar) =>"
        " 100 * bar.querySelector('i').getBoundingClientRect().width / bar.getBoundingClientRect().width)"
    )
    assert shares == pytest.approx(shown, abs=1)
    assert _text(browser, ".choice.right .letter") == "C"
    assert "Right answer" in _text(browser, ".choice.right .notes")
    assert "temperature 3.00" in _text(browser, "#calibration")
    assert "fever" in _text(browser, "#prompt") or "الحمى" in _text(browser, "#prompt")
    direction = browser.run("getComputedStyle(document.getElementById('stem')).direction")
    assert direction == ("rtl" if code == "ar" else "ltr")
    # A bar grows from the side where reading begins.
    edge = "right" if code == "ar" else "left"
    gap = browser.run(
        "(() => { const bar = document.querySelector('.choice .bar');"
        f"return Math.abs(bar.getBoundingClientRect().{edge}"
        f" - bar.querySelector('i').getBoundingClientRect().{edge}); }})()"
    )
    assert gap < 1


def test_what_questions_and_models_say_is_text_and_never_code(browser, page) -> None:
    browser.open(f"{page}#benchmark")
    browser.wait(READY)
    browser.run("document.getElementById('weigh').click()")
    browser.wait(ASKED)
    assert SCRIPT in _text(browser, "#stem")
    assert SCRIPT in _text(browser, ".choice .text")
    browser.run("document.getElementById('tab-chat').click()")
    browser.run("document.getElementById('text').focus()")
    browser.type(SCRIPT)
    browser.press("Enter")
    browser.wait("document.querySelector('.message.assistant .cost, .message .fault')")
    assert _text(browser, ".message.user .said") == SCRIPT
    assert browser.run("document.querySelectorAll('main img, main script').length") == 0
    assert browser.run("document.title") == "valley · biomistral"


def test_views_change_with_the_arrow_keys(browser, page) -> None:
    browser.open(page)
    browser.wait(READY)
    browser.run("document.getElementById('tab-chat').focus()")
    browser.press("ArrowRight")
    assert browser.run("document.activeElement.id") == "tab-benchmark"
    assert browser.run("document.getElementById('chat').hidden")
    browser.press("ArrowLeft")
    assert not browser.run("document.getElementById('chat').hidden")


def test_every_control_has_a_name(browser, page) -> None:
    browser.open(page)
    browser.wait(READY)
    browser.send("Accessibility.enable")
    nodes = browser.send("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "textbox", "combobox", "spinbutton", "tab", "listbox"}
    found = [node for node in nodes if node.get("role", {}).get("value") in roles]
    assert len(found) >= 5
    for node in found:
        assert node.get("name", {}).get("value"), node


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_in_light_and_dark(browser, page, dark) -> None:
    browser.open(f"{page}#benchmark", dark=dark)
    browser.wait(READY)
    browser.run("document.getElementById('weigh').click()")
    browser.wait(ASKED)
    assert browser.run(CONTRAST) == []
    browser.run("document.getElementById('tab-chat').click()")
    browser.run("document.getElementById('settings').open = true")
    assert browser.run(CONTRAST) == []


def test_a_server_with_a_key_asks_for_it(browser, start_server, opened) -> None:
    with start_server(opened, ui=True, api_key=KEY) as client:
        browser.open(f"{client.base}/")
        browser.wait("document.getElementById('key-dialog').open")
        assert ADVISORY in _text(browser, "#advisory")
        for key in ("wrong", KEY):
            browser.run(f"document.getElementById('key').value = {key!r}")
            browser.run("document.querySelector('#key-form button').click()")
            browser.wait(f"document.getElementById('key-dialog').open || {READY}")
        browser.wait(READY)
        assert browser.run("document.getElementById('tab-benchmark').hidden")


def test_a_refusal_is_shown_where_the_answer_would_be(browser, page) -> None:
    browser.open(page)
    browser.wait(READY)
    browser.type("fever " * 600)
    browser.press("Enter")
    browser.wait("document.querySelector('.message .fault')")
    assert "this model's context" in _text(browser, ".message .fault")


def test_the_page_takes_nothing_from_elsewhere_and_writes_no_markup() -> None:
    for path in PAGE.iterdir():
        text = path.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
        for forbidden in (
            "http://",
            "https://",
            "innerHTML",
            "outerHTML",
            "insertAdjacent",
            "eval(",
        ):
            assert forbidden not in text, f"{path.name}: {forbidden}"
