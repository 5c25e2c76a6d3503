"""What models really say becomes a category or a reason; and no text whatever breaks the reading."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.labels import normalise
from stages.answers import MAX_LENGTH, Outcome, Parsed, parse, parse_numbered

NAMED = [
    ("plain", "dog", "dog"),
    ("capital-and-stop", "Dog.", "dog"),
    ("two-words", "Traffic light", "traffic light"),
    ("underscore", "traffic_light", "traffic light"),
    ("five-words", "front wheel of a bicycle", "front wheel of a bicycle"),
    ("hyphen", "T-shirt", "t-shirt"),
    ("apostrophe", "child’s toy", "child's toy"),
    ("digits", "7-Eleven sign", "7-eleven sign"),
    ("slash-of-digits", "24/7 sign", "24/7 sign"),
    ("thousands", "1,000 dollar bill", "1,000 dollar bill"),
    ("abbreviation", "St. Bernard", "st. bernard"),
    ("can-is-a-noun", "watering can", "watering can"),
    ("do-on-a-sign", "Do not enter sign", "do not enter sign"),
    ("mask-with-a-kind", "gas mask", "gas mask"),
    ("area-with-a-kind", "area rug", "area rug"),
    ("and-inside", "salt and pepper shaker", "salt and pepper shaker"),
    ("part", "bottle: cap", "bottle: cap"),
    ("part-of", "part of a car", "part of a car"),
    ("article-a", "a bicycle", "bicycle"),
    ("article-an", "An umbrella", "umbrella"),
    ("article-the", "the sky", "sky"),
    ("double-quotes", '"dog"', "dog"),
    ("single-quotes", "'dog'", "dog"),
    ("curly-quotes", "“Dog”.", "dog"),
    ("guillemets", "« chien »", "chien"),
    ("bold", "**Dog**", "dog"),
    ("italic", "_dog_", "dog"),
    ("code", "`traffic light`", "traffic light"),
    ("heading", "### Dog", "dog"),
    ("bullet", "- dog", "dog"),
    ("number", "1. Dog", "dog"),
    ("quotation", "> dog", "dog"),
    ("label-answer", "Answer: dog", "dog"),
    ("label-bold", "**Category:** Dog", "dog"),
    ("label-object", "Object: fire hydrant", "fire hydrant"),
    ("label-final", "Final answer: dog", "dog"),
    ("label-numbered", "Region 3: dog", "dog"),
    ("label-on-its-own-line", "Category:\n\nDog", "dog"),
    ("heading-on-its-own-line", "## Answer\ndog", "dog"),
    ("not-a-heading", "**Dog:**\nA small animal.", "dog"),
    ("lead-object-is", "The object is a dog.", "dog"),
    ("lead-this-is", "This is a dog.", "dog"),
    ("lead-it-is", "It is an umbrella.", "umbrella"),
    ("lead-its", "It's a “dog”.", "dog"),
    ("lead-appears", "It appears to be a dog", "dog"),
    ("lead-looks-like", "Looks like a dog", "dog"),
    ("lead-shows", "The highlighted region shows a fire hydrant.", "fire hydrant"),
    ("lead-outlined", "The area outlined in red is a wheel.", "wheel"),
    ("lead-tinted", "The region tinted translucent red and outlined in red is the sky.", "sky"),
    ("lead-object-in", "The object inside the red outline appears to be a dog", "dog"),
    ("lead-category", "The category of the highlighted region is **dog**.", "dog"),
    ("lead-see", "I see a cat", "cat"),
    ("lead-can-see", "I can see a cat.", "cat"),
    ("lead-think", "I think it is a dog", "dog"),
    ("lead-call", "I would call it a mug", "mug"),
    ("lead-that-would-be", "That would be a dog.", "dog"),
    ("lead-based-on", "Based on the image, the object is a dog.", "dog"),
    ("lead-in-this-image", "In this image there is a window", "window"),
    ("lead-that-is", "The object that is outlined in red is a handle", "handle"),
    ("lead-sure", "Sure! The answer is: dog", "dog"),
    ("lead-here-is", "Certainly! Here is the category name:\n\ntraffic light", "traffic light"),
    ("lead-hedge", "Most likely a dog", "dog"),
    ("lead-kind-of", "a type of flower", "flower"),
    ("lead-yes", "Yes, it is a dog.", "dog"),
    ("explained-by-dash", "dog - a small animal", "dog"),
    ("explained-by-em-dash", "dog—it has fur", "dog"),
    ("explained-by-comma", "dog, a small animal", "dog"),
    ("explained-with-commas", "dog, a small, furry animal", "dog"),
    ("explained-by-colon", "Dog: a small animal", "dog"),
    ("explained-by-which", "dog which is running", "dog"),
    ("explained-by-because", "Dog, because it has fur", "dog"),
    ("explained-in-the-next-sentence", "Dog. The region shows its head.", "dog"),
    ("explained-on-the-next-line", "dog\n\nThe outlined region is furry.\n- four legs\n- a tail", "dog"),
    ("unsure-but-named", "Dog, although it is hard to tell", "dog"),
    ("parenthesis", "cat (animal)", "cat"),
    ("parenthesis-cut-off", "cat (a small ani", "cat"),
    ("parentheses-of-a-box", "dog (12,34),(56,78)", "dog"),
    ("in-brackets", "[dog]", "dog"),
    ("or", "dog or wolf", "dog"),
    ("either-or", "Either a dog or a wolf", "dog"),
    ("slash", "cat/kitten", "cat"),
    ("two-by-comma", "dog, golden retriever", "dog"),
    ("json-category", '{"category": "Dog"}', "dog"),
    ("json-name", '{"name": "dog", "confidence": 0.9}', "dog"),
    ("json-capital-key", '{"Label": "dog"}', "dog"),
    ("json-answer", '{"answer": "The object is a dog."}', "dog"),
    ("json-string", '"\\u72ac"', "犬"),
    ("json-list-of-one", '["dog"]', "dog"),
    ("json-list-of-the-same", '["dog", "Dog"]', "dog"),
    ("json-detection", '```json\n[{"bbox_2d": [1, 2, 3, 4], "label": "dog"}]\n```', "dog"),
    ("json-in-prose", 'Here you go: {"category": "dog"} as asked.', "dog"),
    ("fence", "```\ndog\n```", "dog"),
    ("fence-with-language", "```text\ndog\n```", "dog"),
    ("fence-on-one-line", '```json {"category": "dog"}```', "dog"),
    ("think", "<think>Fur, four legs: a cat? No.</think>\n\ndog", "dog"),
    ("think-opened-by-the-template", "It has fur.\n</think>\ndog", "dog"),
    ("think-long", f"<think>{'It has fur. ' * 5000}</think>dog", "dog"),
    ("tags", "<b>dog</b>", "dog"),
    ("tag-answer", "<think>hm</think><answer>dog</answer>", "dog"),
    ("tag-with-handler", '<b onclick="alert(1)">dog</b>', "dog"),
    ("line-break-tag", "dog<br/>a small animal", "dog"),
    ("end-of-sequence", "dog</s>", "dog"),
    ("special-tokens", "<|object_ref_start|>dog<|object_ref_end|><|im_end|>", "dog"),
    ("emoji", "🐶 Dog", "dog"),
    ("bidi", "\u202edog\u202c", "dog"),
    ("control", "do\x00g\x1b", "dog"),
    ("cyrillic", "Собака", "собака"),
    ("japanese", "犬。", "犬"),
    ("arabic", "كلب", "كلب"),
    ("letters-among-lines", "...\n---\n🐶\ndog", "dog"),
    ("long-name", "x" * 60, "x" * 60),
]

REFUSED = [
    ("unknown", "unknown", Outcome.ABSTAINED),
    ("unknown-capital", "Unknown.", Outcome.ABSTAINED),
    ("empty", "", Outcome.ABSTAINED),
    ("blank", " \n", Outcome.ABSTAINED),
    ("empty-json-string", '""', Outcome.ABSTAINED),
    ("json-null", '{"category": null}', Outcome.ABSTAINED),
    ("json-unknown", '{"category": "unknown"}', Outcome.ABSTAINED),
    ("json-empty-list", "[]", Outcome.ABSTAINED),
    ("none", "None", Outcome.ABSTAINED),
    ("nothing", "Nothing", Outcome.ABSTAINED),
    ("n/a", "N/A", Outcome.ABSTAINED),
    ("background", "the background", Outcome.ABSTAINED),
    ("object", "object", Outcome.ABSTAINED),
    ("unidentifiable-object", "An unidentifiable object.", Outcome.ABSTAINED),
    ("some-object", "There's a white object in the background", Outcome.ABSTAINED),
    ("highlighted-region", "highlighted region", Outcome.ABSTAINED),
    ("no-visible-object", "no visible object", Outcome.ABSTAINED),
    ("masked-area", "Masked area", Outcome.ABSTAINED),
    ("unclear", "The region is unclear.", Outcome.ABSTAINED),
    ("unclear-what", "It is unclear what this is.", Outcome.ABSTAINED),
    ("cannot-tell", "cannot tell", Outcome.ABSTAINED),
    ("cannot-determine", "I cannot determine what the region is.", Outcome.ABSTAINED),
    ("cannot-be-identified", "The object cannot be identified", Outcome.ABSTAINED),
    ("cant", "Based on the image, I can’t tell.", Outcome.ABSTAINED),
    ("dont-know", "I don't know", Outcome.ABSTAINED),
    ("not-sure", "I'm not sure, maybe a dog", Outcome.ABSTAINED),
    ("too-blurry", "It is too blurry to tell.", Outcome.ABSTAINED),
    ("sorry", "I'm sorry, I can't help with that.", Outcome.ABSTAINED),
    ("unfortunately", "Unfortunately, I am unable to identify it.", Outcome.ABSTAINED),
    ("as-an-ai", "As an AI language model, I cannot see images.", Outcome.ABSTAINED),
    ("unknown-or-other", "unknown/other", Outcome.ABSTAINED),
    ("three-things", "dog, cat and bird", Outcome.SEVERAL),
    ("three-things-with-articles", "A dog, a cat, and a bird.", Outcome.SEVERAL),
    ("three-things-by-semicolon", "dog; cat; bird", Outcome.SEVERAL),
    ("two-things", "a dog and a cat", Outcome.SEVERAL),
    ("json-list", '["dog", "cat"]', Outcome.SEVERAL),
    ("json-list-of-objects", '[{"label": "dog"}, {"label": "cat"}]', Outcome.SEVERAL),
    ("bullets", "- dog\n- cat", Outcome.SEVERAL),
    ("numbers", "1. dog\n2. cat\n3. bird", Outcome.SEVERAL),
    ("sentence", "The dog is sitting on the grass.", Outcome.SENTENCE),
    ("short-sentence", "A dog was here", Outcome.SENTENCE),
    ("predicate", "The object is located in the corner", Outcome.SENTENCE),
    ("negation", "This is not a dog", Outcome.SENTENCE),
    ("six-words", "man in a red winter jacket", Outcome.SENTENCE),
    ("61-letters", "x" * 61, Outcome.TOO_LONG),
    ("long-words", "pneumonoultramicroscopicsilicovolcanoconiosis patient wristband", Outcome.TOO_LONG),
    ("script", "<script>alert(1)</script>", Outcome.MALFORMED),
    ("image-tag", "<img src=x onerror=alert(1)>", Outcome.MALFORMED),
    ("full-width-script", "＜script＞alert(1)＜/script＞", Outcome.MALFORMED),
    ("json-cut-off", '{"category": "do', Outcome.MALFORMED),
    ("json-other-key", '{"colour": "red"}', Outcome.MALFORMED),
    ("latex", "\\boxed{dog}", Outcome.MALFORMED),
    ("url", "https://example.org/dog", Outcome.MALFORMED),
    ("emoji-only", "🐶", Outcome.NO_TEXT),
    ("number-only", "3", Outcome.NO_TEXT),
    ("punctuation-only", "...", Outcome.NO_TEXT),
    ("heading-only", "Category:", Outcome.NO_TEXT),
    ("lead-in-only", "The object is", Outcome.NO_TEXT),
    ("think-without-end", "<think>It has fur, so dog", Outcome.NO_TEXT),
    ("think-without-answer", "<think>It has fur, so dog</think>", Outcome.NO_TEXT),
]


@pytest.mark.parametrize(("raw", "category"), [pytest.param(raw, name, id=key) for key, raw, name in NAMED])
def test_a_category(raw: str, category: str) -> None:
    assert parse(raw) == Parsed(category, Outcome.NAMED)
    assert parse(category) == Parsed(category, Outcome.NAMED)


@pytest.mark.parametrize(("raw", "outcome"), [pytest.param(raw, code, id=key) for key, raw, code in REFUSED])
def test_a_reason_why_there_is_none(raw: str, outcome: Outcome) -> None:
    assert parse(raw) == Parsed(None, outcome)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(
            piece * (1_000_000 // len(piece)),
            id=ascii(piece)[:24],
        )
        for piece in (
            *("dog ", "x", "the ", "<think>", "</think>", "<b", "<b ", "```", "```a", "[", '{"a":', '"', "(", ", and "),
            *("most ", "the red ", "the object in the ", "the object is ", "this is ", "i think ", "1", "1: ", "a\n"),
            *("a:\n", "- a\n", "-", " or", "/", "\u0301", "\ufdfa", "in the ", "is likely ", "''", "of ", "x' ", "n't"),
        )
    ],
)
def test_a_million_characters(raw: str) -> None:
    for length in (10_000, len(raw)):
        assert parse(raw[:length]).outcome in Outcome
        assert len(parse_numbered(raw[:length], 30)) == 30


ONE = Parsed("dog", Outcome.NAMED)
TWO = Parsed("traffic light", Outcome.NAMED)
ABSTAINED = Parsed(None, Outcome.ABSTAINED)
MISSING = Parsed(None, Outcome.MISSING)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        pytest.param('{"1": "dog", "2": "traffic light"}', [ONE, TWO], id="json"),
        pytest.param('{"2": "traffic light", "1": "dog"}', [ONE, TWO], id="other-order"),
        pytest.param('{"1": "dog", "2": "unknown"}', [ONE, ABSTAINED], id="unknown"),
        pytest.param('{"1": "dog", "2": null}', [ONE, ABSTAINED], id="null"),
        pytest.param('{"1": "dog", "2": 7}', [ONE, Parsed(None, Outcome.MALFORMED)], id="not-a-name"),
        pytest.param('{"1": "dog", "2": ["cat", "bird"]}', [ONE, Parsed(None, Outcome.SEVERAL)], id="several"),
        pytest.param('{"1": "A dog."}', [ONE, MISSING], id="one-left-out"),
        pytest.param('{"0": "cat", "1": "dog", "3": "cat", "9999999": "cat"}', [ONE, MISSING], id="other-numbers"),
        pytest.param('```json\n{"1": "dog",\n "2": "traffic light"}\n```', [ONE, TWO], id="fence"),
        pytest.param('Here:\n{"1": "dog", "2": "traffic light"}\nDone.', [ONE, TWO], id="prose-around"),
        pytest.param('<think>{"1": "cat"}</think>{"1": "dog"}', [ONE, MISSING], id="think"),
        pytest.param('{"mark 1": "dog", "[2]": "traffic_light"}', [ONE, TWO], id="worded-keys"),
        pytest.param('{"marks": {"1": "dog", "2": "traffic light"}}', [ONE, TWO], id="wrapped"),
        pytest.param('{"1": {"name": "dog"}, "2": {"label": "traffic light"}}', [ONE, TWO], id="objects"),
        pytest.param('[{"mark": 1, "name": "dog"}, {"mark": 2, "name": "traffic light"}]', [ONE, TWO], id="list"),
        pytest.param('[{"id": "2", "label": "traffic light"}, {"id": "1", "label": "dog"}]', [ONE, TWO], id="list-ids"),
        pytest.param('{"regions": [{"region": 1, "category": "dog"}]}', [ONE, MISSING], id="wrapped-list"),
        pytest.param('[{"1": "dog"}, {"2": "traffic light"}]', [ONE, TWO], id="list-of-pairs"),
        pytest.param('[{"bbox_2d": [1, 2], "label": "cat"}]', [MISSING, MISSING], id="detections-have-no-number"),
        pytest.param('["dog", "traffic light"]', [MISSING, MISSING], id="no-numbers"),
        pytest.param("{'1': 'dog', '2': 'traffic light'}", [ONE, TWO], id="python"),
        pytest.param('{"1": "dog", "2": "traffic light",}', [ONE, TWO], id="trailing-comma"),
        pytest.param('{"1": "dog", "2": "traff', [ONE, MISSING], id="cut-off"),
        pytest.param('{\n  "1": "dog",\n  "2": "traff', [ONE, MISSING], id="cut-off-lines"),
        pytest.param("1: dog\n2: traffic light", [ONE, TWO], id="lines"),
        pytest.param("1. Dog.\n2. Traffic light.", [ONE, TWO], id="numbered-list"),
        pytest.param("1) dog\n\n2) traffic light", [ONE, TWO], id="parenthesised"),
        pytest.param("[1] dog\n[2] traffic light", [ONE, TWO], id="bracketed"),
        pytest.param("- **1**: dog\n- **2**: traffic light", [ONE, TWO], id="markdown"),
        pytest.param("Mark 1: dog\nMark 2 - traffic light", [ONE, TWO], id="worded-lines"),
        pytest.param("1: dog, 2: traffic light", [ONE, TWO], id="one-line"),
        pytest.param("1: dog\n1: cat\n2: traffic light", [ONE, TWO], id="first-counts"),
        pytest.param("The regions are:\n1: dog\n2:\n", [ONE, MISSING], id="number-without-name"),
        pytest.param("1.5 dogs\n2 cats", [MISSING, MISSING], id="numbers-in-prose"),
        pytest.param("I'm sorry, I can't help with that.", [MISSING, MISSING], id="refusal"),
        pytest.param("", [MISSING, MISSING], id="empty"),
    ],
)
def test_numbered_marks(raw: str, expected: list[Parsed]) -> None:
    assert parse_numbered(raw, 2) == expected


PIECES = (
    *("dog", "traffic light", "object", "region", "unknown", "answer", "category", "label", "sure", "yes", "1", "犬"),
    *("a", "the", "is", "it", "this", "i think", "not", "and", "or", "of", "kind of", "which", "in the", "based on"),
    *(",", ":", ";", ".", "!", "/", "-", "—", " - ", "'", '"', "`", "*", "_", "(", ")", "[", "]", "{", "}", "<b>"),
    *("\n", " ", "🐶", "\u200b", "\u202e", "\u0301", "´", "ﬁ", "＊", "：", "<think>", "</think>", "```", "st", "n't"),
)
ANSWERS = st.one_of(
    st.text(), st.lists(st.sampled_from(PIECES)).map(" ".join), st.lists(st.sampled_from(PIECES)).map("".join)
)
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | ANSWERS,
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["1", "2", "mark", "name", "label", "x"]), inner),
).map(json.dumps)


@given(ANSWERS | JSON)
def test_a_category_is_clean_and_read_again_the_same(raw: str) -> None:
    category, outcome = parse(raw)
    assert (category is not None) == (outcome == Outcome.NAMED)
    if category is not None:
        assert 0 < len(category) <= MAX_LENGTH
        assert not {unicodedata.category(char) for char in category} & {"Cc", "Cf", "Cs", "Co", "Cn", "So"}
        assert not set(category) & set('<>{}[]()"`*\\|')
        assert normalise(category) == category
        assert parse(category) == (category, outcome)


@given(ANSWERS | JSON, st.integers(0, 12))
def test_every_mark_gets_one_result(raw: str, count: int) -> None:
    assert len(parse_numbered(raw, count)) == count


@given(st.lists(st.sampled_from(["dog", "traffic light", "unknown", "The object is a cat."]), max_size=12))
def test_the_shape_of_a_numbered_answer_does_not_matter(names: list[str]) -> None:
    expected = [parse(name) for name in names]
    numbered = list(enumerate(names, 1))
    shapes = [
        json.dumps(dict(numbered)),
        json.dumps([{"mark": mark, "name": name} for mark, name in numbered]),
        *("\n".join(shape.format(mark, name) for mark, name in numbered) for shape in ("{}: {}", "{}. {}", "[{}] {}")),
    ]
    assert all(parse_numbered(shape, len(names)) == expected for shape in shapes)


@pytest.mark.parametrize(("left", "right"), [("[", "]"), ('{"1":', "}"), ('{"name":', "}"), ('[{"1":', "}]")])
@pytest.mark.parametrize("depth", [3, 300, 900, 3000])
def test_nesting(left: str, right: str, depth: int) -> None:
    for raw in (left * depth + '"dog"' + right * depth, left * depth):
        assert parse(raw).outcome in Outcome
        assert len(parse_numbered(raw, 3)) == 3
