from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from biomistral.corpus.files import UnreadableError
from biomistral.corpus.jats import read_article
from biomistral.corpus.language import detect

SENTENCES = {
    "en": "The fever of the patients was treated with bark, and it was gone after three days of rest.",
    "fr": "La fièvre des malades de la vallée a été traitée par l'écorce, et elle est partie en trois jours.",
    "es": "La fiebre de los enfermos del valle se trató con corteza y desapareció después de los tres días.",
    "pt": "A febre dos doentes do vale foi tratada com casca e não voltou mais depois de três dias em casa.",
    "de": "Das Fieber der Kranken im Tal wurde mit der Rinde behandelt und war nach drei Tagen nicht mehr da.",
    "ru": "Лихорадку у больных в долине лечили корой, и она прошла через три дня после начала лечения.",
    "zh": "河谷病人的发热用树皮CT治疗,三天后症状消失,没有复发。患者随访一年。",
    "ar": "عولجت حمى المرضى في الوادي باللحاء واختفت بعد ثلاثة أيام من الراحة.",
    "it": "La febbre dei malati della valle è stata trattata con la corteccia e non è più tornata nel mese.",
    "nl": "De koorts van de zieken in het dal werd met schors behandeld en was na drie dagen niet meer er.",
    "ja": "谷の患者の発熱は樹皮で治療され、三日後に消えました。再発はありませんでした。",
}


@pytest.mark.parametrize(("code", "text"), SENTENCES.items())
def test_a_sentence_is_enough(code: str, text: str) -> None:
    assert detect(text) == code


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("fa", "تب بیماران دره با پوست درخت درمان شد و پس از سه روز از بین رفت که گزارش شده است"),
        (
            "uk",
            "Гарячку хворих у долині лікували корою, і вона зникла через три дні після її початку",
        ),
        ("tr", "Ateşli hastalar vadide ağaç kabuğu ile tedavi edildi ve ateş gün sonra kayboldu"),
        (
            "pl",
            "Gorączka chorych w dolinie była leczona korą i nie wróciła przez następny miesiąc.",
        ),
    ],
)
@pytest.mark.parametrize("times", [1, 30], ids=["short", "long"])
def test_a_neighbour_does_not_pass_for_one_of_the_eight(code: str, text: str, times: int) -> None:
    assert detect(" ".join([text] * times)) == code


@pytest.mark.parametrize("text", ["", "1.5 mg", "12 34 56 " * 500])
def test_what_has_no_letters_has_no_language(text: str) -> None:
    assert detect(text) is None


def test_a_long_text_is_judged_by_its_middle() -> None:
    text = SENTENCES["en"] * 5 + "\n\n" + SENTENCES["pt"] * 300
    assert detect(text) == "pt"


def test_real_articles_are_told_apart(real_data: Path) -> None:
    """Against labels made by others. The one miss lists titles of articles in two languages."""
    folder = real_data / "jats"
    wrong: Counter[tuple[str, str | None]] = Counter()
    right = 0
    for line in (folder / "manifest.jsonl").read_text().splitlines():
        facts = json.loads(line)
        if facts["ok"] is True and facts["lang"]:
            try:
                document = read_article((folder / facts["file"]).read_bytes(), "k")[0]
            except UnreadableError:  # pragma: no cover
                continue
            found = detect(document.text)
            right += found == facts["lang"]
            if found != facts["lang"]:
                wrong[facts["lang"], found] += 1
    assert wrong == {("en", "pt"): 1}
    assert right >= 466


def test_half_of_a_question_is_enough_in_every_language(real_data: Path) -> None:
    """Exam questions, a few hundred characters each: short, and full of names of drugs."""
    spanish = json.loads((real_data / "xmedbench/es.json").read_text())
    french = json.loads((real_data / "frenchmedmcqa/train.json").read_text())
    texts = [("es", f"{q['question']} {q['options']}") for q in spanish[:400]]
    texts += [("fr", " ".join([q["question"], *q["answers"].values()])) for q in french[:400]]
    wrong = [
        (code, detect(text)) for code, text in texts if len(text) >= 200 and detect(text) != code
    ]
    assert len(wrong) <= 0.02 * len(texts), Counter(wrong)
