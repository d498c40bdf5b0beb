"""The Korean pages: README.ko.md with its glossary, and a summary of five sentences at the end of every notebook."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "notebooks"))
import build  # noqa: E402

PATHS = build.paths()
PLACES = [path.relative_to(build.HERE).as_posix() for path in PATHS]
README = (ROOT / "README.ko.md").read_text(encoding="utf-8")
SUMMARIES = build.korean()
SENTENCES = [sentence for _, sentences in SUMMARIES.values() for sentence in sentences]
GLOSSARY = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in README.partition("## 용어")[2].splitlines()
    if line.startswith("| ")
][1:]
PROSE = "\n".join([
    README.partition("## 용어")[0],
    *(f"{korean}: {meaning}" for _, korean, meaning in GLOSSARY),
    *(headline for headline, _ in SUMMARIES.values()),
    *SENTENCES,
])  # fmt: skip

#: The glossary's term -> other ways in which people write it.
OTHERWISE = {
    "가이드 역전파": r"유도 역전파|guided",
    "가중치": r"웨이트",
    "과적합": r"과대 ?적합|오버피팅",
    "기울기": r"그래디언트|경사도",
    "대조군": r"컨트롤|통제군",
    "등변성": r"등변환성|공변성",
    "디컨브넷": r"디콘브넷|데콘브넷|디컨볼루션|역합성곱",
    "무작위 가중치": r"랜덤",
    "불변성": r"불변량",
    "선형 분류기": r"선형분류기|선형 판별기",
    "수용 영역": r"수용 ?장|수용 ?필드|수용영역",
    "스냅숏": r"스냅샷",
    "스트라이드": r"보폭",
    "시드": r"씨드|씨앗",
    "신경망": r"네트워크|뉴럴",
    "언풀링": r"언풀(?!링)|업풀링",
    "에일리어싱": r"앨리어싱|에일리아싱|계단 현상",
    "에폭": r"에포크|이폭",
    "오토인코더": r"자기 ?부호화기|오토엔코더",
    "완전 연결층": r"완전연결|전결합|밀집층",
    "응답 정규화": r"반응 정규화",
    "전치 필터": r"전치필터|트랜스포즈",
    "제거 실험": r"절제 ?연구|어블레이션|제거실험",
    "정류": r"렉티파이|정류화",
    "채널": r"체널",
    "최근접 이웃": r"최근접이웃|가장 가까운 이웃",
    "최대 풀링": r"맥스 ?풀링|최대풀링|최댓값 풀링",
    "크롭": r"크랍|자른 조각",
    "클래스": r"클라스|부류|범주",
    "투영": r"프로젝션|사영",
    "특징 맵": r"특성 ?맵|특징맵|피처 ?맵|특징 지도",
    "패치": r"팻치",
    "편향": r"바이어스",
    "표준 오차": r"표준오차|표준 오류",
    "표준 편차": r"표준편차",
    "학습률": r"학습 율|학습 속도|러닝",
    "합성곱": r"컨볼루션|콘볼루션|합성 곱",
    "활성값": r"활성화 값|활성화값|활성 값|액티베이션",
    "활성 최대화": r"활성화 최대화|활성값 최대화",
    "헤세 행렬": r"헤시안|헤세행렬",
}


@pytest.mark.parametrize("place", SUMMARIES)
def test_a_summary_has_five_sentences(place):
    headline, sentences = SUMMARIES[place]
    assert re.fullmatch(r"\*\*[^*]+\*\*: .+", headline)
    assert len(sentences) == 5
    for sentence in sentences:
        assert sentence.endswith("니다.") and sentence.count("다.") == 1, sentence
        assert len(sentence) <= 110, f"{len(sentence)} characters: {sentence}"


@pytest.mark.parametrize("place", PLACES)
def test_every_notebook_ends_with_its_summary(place):
    _, sentences = SUMMARIES[place]
    last = nbformat.read(build.HERE / place, 4).cells[-1]
    assert last.source.startswith("### 한국어 요약\n\n" + " ".join(sentences))


@pytest.mark.parametrize("term", OTHERWISE)
def test_a_term_is_written_as_in_the_glossary(term):
    assert term in [korean for _, korean, _ in GLOSSARY]
    assert not re.findall(OTHERWISE[term], PROSE)


def test_the_glossary_is_in_order_and_names_each_term_once():
    english, korean, meanings = zip(*GLOSSARY)
    assert list(english) == sorted(english, key=str.lower)
    assert len(set(korean)) == len(korean) and all(meanings)


def test_particles_fit_the_number_before_them():
    """A number is read aloud: conv3은 (sam-eun), but conv4는 (sa-neun); a per cent ends in a vowel."""
    closed, open_ = "[013678]", "[2459%]"
    wrong = rf"{closed}(?:는|가|를|와)\b|{open_}(?:은|이|을|과|으로)\b|[178]으로\b|[036]로\b"
    assert not re.findall(rf"\S*(?:{wrong})", PROSE)


def test_particles_fit_the_syllable_before_them():
    """를 and 와 follow a vowel, 을 a consonant; the other particles look like endings of verbs."""
    closed = {"를": True, "와": True, "을": False}
    for word, syllable, particle in re.findall(r"(\w*([가-힣])(를|와|을))\b", PROSE):
        has_consonant = (ord(syllable) - ord("가")) % 28 > 0
        assert has_consonant != closed[particle], word


def test_the_readme_lists_every_notebook_and_its_links_resolve():
    targets = re.findall(r"\]\(([^)]+)\)", README)
    assert {f"notebooks/{place}" for place in PLACES} <= set(targets)
    headings = {line.lstrip("# ") for line in README.splitlines() if line.startswith("## ")}
    for target in targets:
        if target.startswith("#"):
            assert target[1:] in headings, target
        elif not target.startswith("https://"):
            assert (ROOT / target).exists(), target


def test_the_readme_gives_the_commands_of_the_english_one():
    english = (ROOT / "README.md").read_text(encoding="utf-8")
    for command in re.findall(r"^(?:python|pip|jupyter) .+$", README, re.MULTILINE):
        assert command in english, command
