"""The page: whole, closed to the outside, safe against what models write, and the same every time."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import fake_run
import pytest

from clew.core.errors import RunDirectoryError
from clew.initialize.behaviours import tag
from clew.report import html, plots
from clew.report.data import read_run

VOID = {"meta", "link", "br", "img", "hr", "input"}
SECTIONS = (
    "stages",
    "accuracy",
    "search",
    "thinking",
    "learning",
    "behaviours",
    "stability",
    "account",
    "loss",
    "failures",
    "claims",
)
ALL = (*SECTIONS, "samples", "odd", "cost", "setup")
ATTACK = '</p><script>alert(1)</script><img src=x onerror="alert(2)">try 1 + 1 {{ 7 * 7 }} $x^2$ & \'"'


class Page(HTMLParser):
    """Balanced tags, the ids and attributes seen, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def ids(self) -> list[str]:
        return [value for _, name, value in self.attributes if name == "id"]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    return html.write_report(fake_run.write(tmp_path_factory.mktemp("run"))).read_text(encoding="utf-8")


def rendered(path: Path, **changes: Any) -> tuple[str, Page]:
    text = html.render(read_run(fake_run.write(path, **changes)))
    return text, Page(text)


def test_every_section_is_there_and_every_id_once(text: str) -> None:
    page = Page(text)
    assert [i for i in page.ids if i in ALL] == list(ALL)
    assert len(page.ids) == len(set(page.ids))
    assert text.startswith("<!doctype html>")
    assert len(text.encode()) < 2_000_000


def test_references_inside_the_page_have_a_target(text: str) -> None:
    page = Page(text)
    used = {v[1:] for _, n, v in page.attributes if n == "href" and v.startswith("#")}
    used |= set(re.findall(r"url\(#([^)]+)\)", text))
    assert used
    assert used <= set(page.ids)


def test_nothing_is_fetched_from_outside(text: str) -> None:
    assert set(re.findall(r"https?://[^\s\"'<)]*", text)) == {
        "http://www.w3.org/2000/svg"
    }  # a namespace, never fetched
    page = Page(text)
    assert not [a for a in page.attributes if a[1] in ("src", "srcset", "data", "action")]
    assert {v for _, n, v in page.attributes if n == "href" and not v.startswith("#")} == {"data:,"}
    assert "@import" not in text
    assert "default-src 'none'" in text


def test_what_a_model_wrote_stays_text(tmp_path: Path) -> None:
    sample = {
        "stage": ATTACK,
        "problem_id": ATTACK,
        "prompt": ATTACK,
        "text": ATTACK,
        "outcome": ATTACK,
        "reason": ATTACK,
    }
    summary = fake_run.summary()
    summary["stages"][-1]["name"] = ATTACK
    summary["stages"][-1]["by_difficulty"] = {ATTACK: fake_run.rate(0.5)}
    summary["stages"][-1]["verdict_reasons"] = {ATTACK: 3}
    summary["search"][0]["strategy"] = ATTACK
    summary["claims"]["thinking"]["note"] = ATTACK
    text, page = rendered(
        tmp_path, samples=[sample], summary=summary, config={ATTACK: ATTACK}, environment={"cpu": ATTACK}
    )
    assert page.tags.count("script") == 1
    assert "img" not in page.tags
    assert not [a for a in page.attributes if a[1].startswith("on")]
    assert page.text.count("<script>alert(1)</script>") >= 8
    assert "{{ 7 * 7 }}" in page.text
    assert text.count("</script>") == 1


def test_the_script_matches_its_hash(text: str) -> None:
    import base64
    import hashlib

    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)
    assert script is not None
    assert base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode() in text


def test_the_same_run_gives_the_same_bytes(text: str, tmp_path: Path) -> None:
    run_dir = fake_run.write(tmp_path / Path(re.findall(r"<h1>(.*?)</h1>", text)[0]))
    assert html.write_report(run_dir).read_text(encoding="utf-8") == text
    assert sorted(p.name for p in run_dir.iterdir() if p.name.startswith((".", "report"))) == ["report.html"]


def without(*keys: str) -> dict[str, Any]:
    summary = fake_run.summary()
    summary["stages"] = [{k: v for k, v in s.items() if k not in keys} for s in summary["stages"]]
    return {k: v for k, v in summary.items() if k not in keys}


RL_KEYS = ("accuracy", "reward", "length", "entropy", "kl", "groups_dropped")
NO_RL = {"rl_odd_samples": None, "rl_account": None}
ONLY_LOSS = [{k: v for k, v in row.items() if k not in RL_KEYS} for row in fake_run.metrics() if row["step"] < 30]


@pytest.mark.parametrize(
    ("changes", "absent"),
    [
        ({"summary": {}, "metrics": None, "config": None, "environment": None, "samples": None, **NO_RL}, set(ALL)),
        ({"summary": without("search"), "metrics": None}, {"search", "learning", "stability", "loss"}),
        (
            {"summary": without("claims", "direct", "first_attempt"), "metrics": None},
            {"thinking", "claims", "learning", "stability", "loss"},
        ),
        (
            {"summary": without("behaviours", "transitions"), "metrics": ONLY_LOSS},
            {"behaviours", "learning", "stability"},
        ),
        (
            {"summary": without("verdict_reasons"), "metrics": None, "samples": [], **NO_RL},
            {"failures", "samples", "odd", "account", "learning", "stability", "loss"},
        ),
        (
            {"summary": without("seconds", "tokens", "total_seconds"), "metrics": None},
            {"cost", "learning", "stability", "loss"},
        ),
        ({"config": {}, "environment": None, "metrics": fake_run.metrics()[-350:]}, {"setup", "loss"}),
    ],
)
def test_what_is_missing_is_left_out_and_the_rest_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], absent: set[str]
) -> None:
    monkeypatch.setattr(plots, "figure_svg", lambda *_, **__: "<svg></svg>")  # what is drawn is tested elsewhere
    _, page = rendered(tmp_path, **changes)
    assert {i for i in page.ids if i in ALL} == set(ALL) - absent
    anchors = {v[1:] for t, n, v in page.attributes if (t, n) == ("a", "href")}
    assert anchors <= set(page.ids)


def test_the_stage_table_shows_the_summarys_numbers(tmp_path: Path) -> None:
    rows = html.stage_table(read_run(fake_run.write(tmp_path, metrics=None)))
    assert rows[0] == ["stage", "pass@1", "greedy", "direct", "first attempt", "pass@64", "length", "n"]
    assert rows[4][:2] == ["RL", "63.0\xa0%\n58.8 to 67.2"]
    assert rows[4][5].startswith(f"{100 * fake_run.stage('rl')['pass_at_k']['64']['mean']:.1f}\xa0%")


def test_the_cost_table_adds_up(tmp_path: Path) -> None:
    rows = html.cost_table(read_run(fake_run.write(tmp_path, metrics=None)))
    assert rows[4] == ["RL", "3 min 30 s", "37 %", "6.25 M", "29.8 k"]
    assert rows[5][:3] == ["evaluation, search and the rest", "1 min 26 s", "15 %"]  # 571.3 - 485
    assert rows[6][:4] == ["all", "9 min 31 s", "100 %", "23.8 M"]


def test_texts_without_behaviours_have_no_legend_and_no_blank_lines_around_them(tmp_path: Path) -> None:
    texts = {"long": "\n\nForty\n\nand two.\n", "none": " \n"}
    samples = [{"stage": "rl", "problem_id": name, "text": text, "tokens": 1} for name, text in texts.items()]
    page = html.write_report(fake_run.write(tmp_path, metrics=None, samples=samples)).read_text(encoding="utf-8")
    (section,) = re.findall('<section id="samples">.*?</section>', page, re.DOTALL)
    assert '<p class="trace">Forty\n\nand two.</p>' in section
    assert section.count("Nothing was written.") == 1
    assert section.count("1 token<") == 2
    assert "cue words" not in section
    assert "data-behaviour" not in section
    samples[1]["text"] = "42 is even: wrong. try 43"
    page = html.write_report(fake_run.write(tmp_path, metrics=None, samples=samples)).read_text(encoding="utf-8")
    found = {s.behaviour.value for s in tag(str(samples[1]["text"])) if s.behaviour}
    assert set(re.findall('data-behaviour="(.*?)"', page)) == found != set()


@pytest.mark.parametrize(
    ("right", "wrong", "expected"), [(7, 7, (5, 5)), (9, 2, (8, 2)), (1, 9, (1, 9)), (2, 1, (2, 1))]
)
def test_ten_samples_half_right_if_there_are(tmp_path: Path, right: int, wrong: int, expected: tuple[int, int]) -> None:
    rows = [{"stage": "rl", "text": "try", "outcome": "right"}] * right + [
        {"stage": "rl", "text": "no", "outcome": "wrong"}
    ] * wrong
    early = [{"stage": "sft", "text": "early", "outcome": "right"}]
    picked, stage = html.chosen_samples(read_run(fake_run.write(tmp_path, metrics=None, samples=rows + early)))
    assert stage == "rl"
    assert tuple([s.outcome for s in picked].count(o) for o in ("right", "wrong")) == expected


def test_the_pieces_of_a_sample_join_to_its_text(tmp_path: Path) -> None:
    picked, _ = html.chosen_samples(read_run(fake_run.write(tmp_path, metrics=None)))
    assert "".join(text for _, text in picked[0].spans) == fake_run.RIGHT
    assert ("evaluation", "check 3 left") in picked[0].spans


def test_a_failed_write_leaves_the_old_report_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_run.write(tmp_path, summary={}, metrics=None, samples=None)
    (tmp_path / "report.html").write_text("old")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(RunDirectoryError, match="No space left"):
        html.write_report(tmp_path)
    monkeypatch.undo()
    assert (tmp_path / "report.html").read_text() == "old"
    assert not list(tmp_path.glob(".report*"))
