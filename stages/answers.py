"""What a model said about a region: a category, or a recorded reason why there is none.

An answer passes through: thoughts and fences off, JSON opened, first line with content, shortening to the name,
verdict. Nothing but the search for a thought's end sees more than `_LOOK_AT` characters, and the rules that are
tried repeatedly see one line of at most `_LINE`; so time is linear in the length of an answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

from pipeline.labels import normalise

MAX_WORDS = 5  # of a category; more is taken for a sentence
MAX_LENGTH = 60  # characters of a category
_LOOK_AT = 20_000  # characters of an answer: some 500 numbered marks
_LINES = 20  # lines among which the first with content is sought
_LINE = 400  # characters of that line: lead-in, name and the beginning of an explanation
_DEPTH = 4  # levels of JSON


class Outcome(StrEnum):
    """What became of an answer."""

    NAMED = "named"
    ABSTAINED = "abstained"  # does not know, refuses, names nothing more definite than "object", or is empty
    SEVERAL = "several"  # a list of different things
    SENTENCE = "sentence"  # a finite verb or more than MAX_WORDS words, lead-ins and explanations aside
    TOO_LONG = "too-long"
    MALFORMED = "malformed"  # pieces of JSON, code, markup or a URL: a name cut out of these would be a guess
    NO_TEXT = "no-text"  # no letters besides a lead-in: emoji, digits, a thought that never ended
    MISSING = "missing"  # one prompt asked about several marks, and this one was not answered


class Parsed(NamedTuple):
    """An answer as read; the category is None unless the outcome is NAMED."""

    category: str | None
    outcome: Outcome


# What wraps an answer. Tags that no model uses for layout (script, img) stay, and make the answer malformed.
_BREAK = re.compile(r"```(?:json\b|\w{1,20}(?=\n))?|</?(?:p|div|br|ul|ol|li)\b[^<>]{0,99}>", re.I)
_TAG = re.compile(r"</?(?:b|i|u|em|strong|span|s|code|ref|answer|category|label)\b[^<>]{0,99}>|<\|\w{1,40}\|>", re.I)
_BULLET = re.compile(r"(?:[-+*•>]|\(?\d{1,3}[.):])\s")
_HEADING = re.compile(r"\b(?:answer|category|label|name|object|region|response|here)\b", re.I)
_NAME_KEYS = ("category", "category_name", "name", "label", "answer", "object", "class", "region")
_MARK_KEYS = ("mark", "id", "number", "region", "index")
_MARK = r"[\W_]{0,9}(?:(?:mark|region|object|label|mask|area|id|number|no|item)[\W_]{0,3})?(\d{1,4})"
_MARKED_LINE = re.compile(rf"{_MARK}(?![.-]\d)[\"'*\s]{{0,3}}[])}}:.=-]+[\s*]{{0,3}}(.+)", re.I)
_NEXT_MARK = re.compile(r"\n|[,;]\s?(?=[\"'\[(]?\d{1,4}[\"'\])]?\s?:)")

# Lead-ins. From here on patterns see normalised text: lower case, single spaces, bare ends.
_VERB = (
    r"(?:is|are|was|were|(?:would|could|may|might|must) be|(?:appears?|seems?) to (?:be|show)|(?:looks?|seems?) like"
    r"|shows?|depicts?|contains?|displays?|represents?|resembles)"
    r"(?: (?:most likely|likely|probably|possibly|clearly|called|known as|identified as|labell?ed))?(?: |:|$)"
)
_NOUN = (
    r"(?:(?:the|this|that|my|your) )?(?:(?:highlighted|outlined|marked|masked|(?:red-)?tinted|shaded|segmented|selected"
    r"|circled|numbered|enclosed|visible|main|red|whole|short|best|correct|final|object|category) ){0,4}"
    r"(?:object|region|area|item|thing|segment|part|image|picture|crop|category|name|answer|label|class)(?: #?\d{1,3})?"
)
_PLACE = (
    r"(?: (?:in|inside|within|outlined|enclosed|marked|highlighted|tinted|shown|for|of|with|by|you|(?:that|which) is)"
    r"(?: [^,.;:]{1,80}?)?)?"
)
_LEAD_INS = (
    r"(?:sure|certainly|of course|okay|ok|yes)(?:[,!.:]+ ?|$)|(?:well|unfortunately), ",
    r"(?:based on|due to|given|judging by|looking at|from|in) [^,]{1,80}, |in (?:the|this) (?:image|picture) ",
    r"(?:(?:most|very) )?(?:likely|probably|possibly|maybe|perhaps|apparently|definitely|either|simply)(?: |$)",
    rf"{_NOUN}{_PLACE} {_VERB}|(?:it|this|that|these|those|there|here) {_VERB}|(?:it|that|there|here)'s ",
    r"(?:looks|seems) like |appears to be |(?:some |an? )?(?:kind|type|sort|close-?up|image) of ",
    r"(?:i|we|you)(?: can| could| would|'d)? (?:(?:see|think|believe|say|guess)(?: that)?|(?:call|name) (?:this|it)) ",
    rf"{_NOUN} ?[:=] ?|(?:the |my )?(?:final )?(?:answer|response|category)$",
)
_ARTICLE = r"(?:(?:an?|the)(?: |$))"

_SHORTENINGS = tuple(
    (re.compile(pattern), kept)
    for pattern, kept in (
        (r"[*`\"“”„‟«»「」]+|~~", ""),  # emphasis and quotes, also inside
        (rf"^(?:{_BULLET.pattern}|\[\d{{1,3}}\] ?)", ""),
        (r"^[\[(]([^][(){}]*)[\])]$", r"\1"),
        (rf"^(?:{'|'.join(_LEAD_INS)})+", ""),
        (rf"^{_ARTICLE}+", ""),
        (r" ?\([^()]*\)?$", ""),  # as the WOW-Seg scorer does; also where the token limit cut it off
        (r" ?(?:—|--| - ).*", ""),
        (r"(?<=\w{3})[.!?] .*", ""),  # the next sentence; three letters, so that "st. bernard" stays whole
        (r" (?:that|which|because|since|although|but) .*", ""),
        (r": (?:an?|the|this|it|i) .*", ""),  # an explanation, whereas "bottle: cap" is an object's part
        (r"(?<=[^\W\d]{2}) ?/ ?(?=[^\W\d]{2}).*| or .*", ""),  # the first alternative; "24/7" and "n/a" are none
    )
)
"""Each makes the text shorter. Repeated until none does, so a category that is read again stays the same."""

# What the remaining text may be instead of a name.
_EMPTY = re.compile(
    r"(?:(?:un(?:known|clear|identifi(?:able|ed)|determined|recogni[sz]able|defined|specified|certain|sure|available)"
    r"|indeterminate|indistinguishable|ambiguous|nothing|none|n/a|na|null|no|not|yes|of|the|above|other|in|here|visible"
    r"|something|anything|items?|stuff|regions?|areas?|masked|masks?|segments?|blurry|clear|sure|background|outlined"
    r"|identifiable|recogni[sz]able|applicable|available|specific|highlighted|marked|objects?|things?)(?: |$))+"
    r"|.* (?:objects?|things?)(?: (?:in|on|at) .*)?"  # "white object in the background"
)
"""Words that, alone or together, do not say what a region is ("no visible object")."""

_REFUSAL = re.compile(
    r"(?:i'm |i am |it's )?(?:sorry\b|not (?:sure|certain|clear|possible|enough|identifiable)\b)|as an ai\b"
    r"|(?:unclear|impossible|difficult|hard|unable|too \w+) (?:to|what|as|if|whether|for)\b"
    r"|.*\b(?:cannot|can not|can't|could not|couldn't|unable to|not able to|do not know|don't know|don't see|no idea)\b"
)
_FINITE = re.compile(
    r"(?:^| )(?:is|are|was|were|be|been|has|have|had|seems?|appears?|depicts|contains|would|could|should|does|did|it|i"
    r"|we|you|they|this|that|there|located|positioned|situated|it's|that's|there's|\w+n't|\w+'(?:m|re|ve|ll|d))(?= |$)"
    r"|^not "
)  # without "can", "will", "may", "do": watering can, do not enter sign
_DEBRIS = re.compile(r"[][(){}<>|\\=^~]|://")
_COMMA = re.compile(r"[,;、](?!\d) ?")
_AND = re.compile(r"(?:^| )(?:and|&) ")
_TWO_THINGS = re.compile(rf"[,;] and |\band {_ARTICLE}")


def parse(raw: str) -> Parsed:
    """Read an answer to "what is this region?"; any text will do."""
    if not raw.strip():
        return Parsed(None, Outcome.ABSTAINED)
    for line in _lines(_opened(_spoken(raw))):
        text = _shorten(line)
        if _has_letters(text):
            return _verdict(text)
    return Parsed(None, Outcome.NO_TEXT)


def parse_numbered(raw: str, count: int) -> list[Parsed]:
    """Read an answer about marks 1 to `count`, in their order; other numbers are ignored.

    JSON of several shapes, or lines such as "1: dog" and "[1] dog" (also those of JSON that breaks off). Where a mark
    has two answers the first counts. A list without numbers answers nothing: one skipped mark would shift the rest.
    """
    spoken = _spoken(raw)
    said: dict[int, Parsed] = {}
    for mark, value in list(_marks(_json(spoken))) or _marked_lines(spoken):
        if mark <= count and mark not in said:
            name = _name_in(value)
            said[mark] = Parsed(None, Outcome.MALFORMED) if name is None else parse(name)
    return [said.get(mark, Parsed(None, Outcome.MISSING)) for mark in range(1, count + 1)]


def _spoken(raw: str) -> str:
    """Return what follows the last thought, without fences and layout tags; nothing if a thought did not end."""
    _, _, spoken = raw.rpartition("</think>")
    if "<think>" in spoken:
        return ""
    return _TAG.sub("", _BREAK.sub("\n", spoken.strip()[:_LOOK_AT])).strip()


def _json(text: str) -> object:
    """Return the JSON that the text is or holds, or None."""
    for candidate in (text, text[text.find("{") : text.rfind("}") + 1]):
        try:
            return json.loads(candidate, strict=False)
        except (ValueError, RecursionError):
            continue
    return None


def _opened(text: str) -> str:
    """Return the name inside JSON, or the text itself where there is none."""
    value = _json(text)
    name = None if value is None else _name_in(value)
    return text if name is None else name or "none"


def _name_in(value: object, depth: int = _DEPTH) -> str | None:
    """Return the name that a JSON value holds: "" for null, a list in words for a list, None for anything else."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, dict) and depth:
        fields = {key.lower(): inner for key, inner in value.items()}
        return next((_name_in(fields[key], depth - 1) for key in _NAME_KEYS if key in fields), None)
    if isinstance(value, list) and depth:
        names = [_name_in(item, depth - 1) for item in value]
        return None if None in names else ", and ".join(map(str, names))
    return None


def _marks(value: object, depth: int = _DEPTH) -> Iterator[tuple[int, object]]:
    """Find {"1": "dog"}, {"mark": 1, "name": "dog"}, and lists and objects of these."""
    if isinstance(value, list) and depth:
        for item in value:
            yield from _marks(item, depth - 1)
    elif isinstance(value, dict) and depth:
        if mark := next((_number(value[key]) for key in _MARK_KEYS if key in value), 0):
            yield mark, value
        for key, inner in value.items():
            yield from [(mark, inner)] if (mark := _number(key)) else _marks(inner, depth - 1)


def _number(key: object) -> int:
    """Return the number of a mark, such as 3 of "mark 3", or 0."""
    found = re.fullmatch(rf"{_MARK}[\W_]{{0,3}}", str(key), re.I) if isinstance(key, str | int) else None
    return int(found[1]) if found else 0


def _marked_lines(text: str) -> Iterator[tuple[int, object]]:
    for line in _NEXT_MARK.split(text):
        found = _MARKED_LINE.match(line)
        if found and not (found[2].startswith('"') and found[2].count('"') == 1):  # cut off by the token limit
            yield int(found[1]), found[2].rstrip(" ,}")


def _lines(text: str) -> list[str]:
    """Return the lines that may hold the name, so not "Here is the answer:"; a bulleted list becomes one line."""
    lines = [line.strip() for line in text.splitlines() if _has_letters(line)]
    lines = [line for line in lines if not (line.rstrip("*_ ").endswith(":") and _HEADING.search(line))][:_LINES]
    bulleted = [line[found.end() :] for line in lines if (found := _BULLET.match(line))]
    if len(bulleted) > 1 and _BULLET.match(lines[0]):
        return [", and ".join(bulleted)]
    return lines


def _has_letters(text: str) -> bool:
    return any(map(str.isalpha, text))


def _shorten(text: str) -> str:
    """Take lead-ins, articles, explanations and second choices off, in any order, until nothing changes."""
    text, before = normalise(text[:_LINE]), ""
    while text != before:
        before = text
        for pattern, kept in _SHORTENINGS:
            text = pattern.sub(kept, text)
        text = normalise(text)
    return text


def _verdict(text: str) -> Parsed:
    """Judge a line that is as short as it gets but for commas."""
    first = _shorten(_COMMA.split(text)[0])
    if _REFUSAL.match(first) or _EMPTY.fullmatch(first):
        return Parsed(None, Outcome.ABSTAINED)
    if _is_list(text):
        return Parsed(None, Outcome.SEVERAL)
    if len(first.split()) > MAX_WORDS or _FINITE.search(first):
        return Parsed(None, Outcome.SENTENCE)
    if _DEBRIS.search(first):
        return Parsed(None, Outcome.MALFORMED)
    if len(first) > MAX_LENGTH:
        return Parsed(None, Outcome.TOO_LONG)
    return Parsed(first, Outcome.NAMED) if _has_letters(first) else Parsed(None, Outcome.NO_TEXT)


def _is_list(text: str) -> bool:
    """Tell "dog, cat and bird" from "dog, a small, furry animal": in a list, all things have articles or none has."""
    first, *rest = _COMMA.split(text)
    things = [thing for part in rest for thing in _AND.split(part) if thing.strip()]
    if not _TWO_THINGS.search(text) and len(things) < 2:
        return False
    articles = {re.match(_ARTICLE, thing) is not None for thing in things}
    return len(articles) < 2 and {_shorten(thing) for thing in things} != {first}
