"""Trees from a language model: a scripted model that is good, sloppy, wrong, cut off or interrupted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from robustree.taxonomy import build_forest
from robustree.taxonomy.building.answers import Names, read_assignment, read_groups
from robustree.taxonomy.building.chat import Answer, Chat, Messages
from robustree.taxonomy.building.language import CORRECTIONS, language_tree
from tests.taxonomy.building.endpoint import Reply, endpoint, says

CLASSES = ("dog", "cat", "hen", "owl", "bread", "pear", "fig", "tea")
GROUPS = {"animal": ["mammal", "bird"], "food": ["fruit", "meal"]}
RIGHT = {"dog": "mammal", "cat": "mammal", "hen": "bird", "owl": "bird", "pear": "fruit", "fig": "fruit"}
RIGHT |= {"bread": "meal", "tea": "meal"}


class Scripted:
    """Answers from a function of the prompt and the number of the question; counts what is forgotten."""

    def __init__(self, say: Callable[[str, int], str | Answer]):
        self.say = say
        self.asked: list[Messages] = []
        self.forgotten: list[Messages] = []

    def ask(self, messages: Messages) -> Answer:
        self.asked.append(messages)
        said = self.say(messages[-1][1], len(self.asked) - 1)
        return said if isinstance(said, Answer) else Answer(said, True)

    def forget(self, messages: Messages) -> None:
        self.forgotten.append(messages)


def good(prompt: str) -> str:
    """What a good model says to a prompt."""
    if "Name groups" in prompt:
        return json.dumps(GROUPS)
    asked = prompt.partition("exactly one of these groups:")[2].partition("Answer with")[0].split("\n")
    return json.dumps({name: RIGHT[name] for name in asked if name})


def test_a_good_model_gives_its_tree() -> None:
    model, progress = Scripted(lambda prompt, number: good(prompt)), []
    source = language_tree(CLASSES, model, chunk=3, report=lambda done, total: progress.append((done, total)))
    forest = build_forest(CLASSES, [source])
    assert source.nested == {
        "animal": {"mammal": ["dog", "cat"], "bird": ["hen", "owl"]},
        "food": {"meal": ["bread", "tea"], "fruit": ["pear", "fig"]},
    }
    assert [len(cut.nodes) for cut in forest.cuts()] == [8, 4, 2]
    assert progress == [(0, 8), (3, 8), (6, 8), (8, 8)]
    assert "dog\ncat\nhen\n\nAnswer" in model.asked[1][0][1] and "animal > mammal" in model.asked[1][0][1]
    assert not model.forgotten


def test_case_plural_blanks_prose_and_thinking_are_mended() -> None:
    def say(prompt: str, number: int) -> str:
        text = good(prompt)
        if number:
            text = text.replace("dog", "Dogs").replace('"fruit"', '"Fruits "').replace("owl", "OWL")
        return f'<think>maybe {{"x": ["y"]}}</think> Here it is:\n```json\n{text}\n``` I hope [it] helps.'

    plain = language_tree(CLASSES, Scripted(lambda prompt, number: good(prompt)))
    assert language_tree(CLASSES, Scripted(say)) == plain


def test_a_fault_is_named_to_the_model_until_it_is_mended() -> None:
    def say(prompt: str, number: int) -> str:
        if number in (1, 2):
            return json.dumps({"dog": "mammal", "cat": "fish"})
        return good(model.asked[-1][0][1])

    model = Scripted(say)
    language_tree(CLASSES, model)
    assert len(model.asked) == 4
    first, last = model.asked[1], model.asked[3]
    assert [role for role, _ in last] == ["user", "assistant", "user"] and last[0] == first[0]
    assert "These classes are missing: hen, owl, bread, pear, fig, tea." in last[2][1]
    assert "These values are none of the groups: cat: fish." in last[2][1]


def test_a_model_that_stays_wrong_is_refused_and_forgotten() -> None:
    model = Scripted(lambda prompt, number: "I cannot do that." if number else good(prompt))
    with pytest.raises(ValueError, match="'dog' to 'tea' is wrong after 3 corrections: It holds no JSON object"):
        language_tree(CLASSES, model)
    assert model.forgotten == model.asked[1:] and len(model.forgotten) == CORRECTIONS + 1


def test_a_chunk_that_is_cut_off_is_halved() -> None:
    def say(prompt: str, number: int) -> str | Answer:
        asked = prompt.partition("exactly one of these groups:")[2].partition("Answer with")[0].split()
        return Answer('{"dog": "mam', False) if len(asked) > 2 else good(prompt)

    model = Scripted(say)
    assert language_tree(CLASSES, model) == language_tree(CLASSES, Scripted(lambda prompt, number: good(prompt)))
    assert len(model.asked) == 1 + 7
    cut = Scripted(lambda prompt, number: Answer("{", False) if number else good(prompt))
    with pytest.raises(ValueError, match="answer about 'dog' alone is cut off: use another model"):
        language_tree(CLASSES, cut)
    with pytest.raises(ValueError, match="the list of groups is cut off"):
        language_tree(CLASSES, Scripted(lambda prompt, number: Answer("{", False)))


@pytest.mark.parametrize(
    ("answer", "levels", "fault"),
    [
        ("no", 2, "It holds no JSON."),
        ('["a", "b"]', 2, "The JSON must have 2 levels"),
        ('{"a": ["b", 3]}', 2, "The JSON must have 2 levels"),
        ('{"a": {"b": ["c"]}}', 2, "The JSON must have 2 levels"),
        ('["misc things", "fish"]', 1, "These are no readable group names: misc things."),
        ('["<b>", "fish"]', 1, "These are no readable group names: <b>."),
        ('["", "fish"]', 1, "These are no readable group names: ."),
        ('["fish", "Fish", "bird"]', 1, "These names are given to more than one group: Fish."),
        ('["fish", "fish", "bird"]', 1, "These names are given to more than one group: fish."),
        ('{"bird": ["bird", "fish"]}', 2, "These names are given to more than one group: bird."),
        ('["DOG", "fish"]', 1, "These groups are called like a class: DOG."),
        ('["fish"]', 1, "It has 1 groups at the finest level; use between 2 and 4."),
        ('["v", "w", "x", "y", "z"]', 1, "It has 5 groups at the finest level"),
        ("[" * 50_000, 1, "It holds no JSON."),
    ],
)
def test_faults_of_groups(answer: str, levels: int, fault: str) -> None:
    _, faults = read_groups(answer, CLASSES, levels=levels, most=4)
    assert any(found.startswith(fault) for found in faults), faults


@pytest.mark.parametrize(
    ("answer", "faults"),
    [
        ('{"dog": "a", "cat": "b", "unicorn": "c"}', ()),
        ('{"dog": "a", "Dog": "a", "cat": "b"}', ()),
        ('{"dog": "a", "dog": "b", "cat": "b"}', ("These classes have more than one group: dog.",)),
        ('{"dog": ["a"], "cat": "b"}', ("These values are none of the groups: dog: list.",)),
        ('{"dog": null}', ("These classes are missing: cat.", "These values are none of the groups: dog: NoneType.")),
        ('["dog"]', ("It holds no JSON object.",)),
    ],
)
def test_faults_of_an_assignment(answer: str, faults: tuple[str, ...]) -> None:
    chosen, found = read_assignment(answer, ["dog", "cat"], ["a", "b"])
    assert found == faults
    if not faults:
        assert chosen == {"dog": "a", "cat": "b"}


def test_names_are_not_guessed() -> None:
    names = Names(["glass", "glasses", "fox", "Berry", "sea_lion", "bus"])
    found = [names.find(text) for text in ("glass", "Glasses", "foxes", "berries", "Sea Lions", "buses", "gls", 3)]
    assert found == ["glass", None, "fox", "Berry", "sea_lion", None, None, None]
    assert Names(["gas mask", "gas masks"]).find("Gas mask") is None


@pytest.mark.parametrize(
    ("classes", "more", "sentence"),
    [
        (CLASSES[:3], {}, "3 classes need no groups"),
        (CLASSES, {"levels": 5}, "levels is 5; a language model is asked for 1 to 4"),
        (CLASSES, {"chunk": 0}, "chunk is 0"),
    ],
)
def test_bad_arguments(classes: tuple[str, ...], more: dict[str, int], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        language_tree(classes, Scripted(lambda prompt, number: good(prompt)), **more)  # type: ignore[arg-type]


def test_groups_that_group_nothing_are_refused() -> None:
    everything = Scripted(
        lambda prompt, number: '["a", "b"]' if not number else json.dumps(dict.fromkeys(CLASSES, "a"))
    )
    with pytest.raises(ValueError, match="puts all classes into one group"):
        language_tree(CLASSES, everything, levels=1)


def test_an_interrupted_build_goes_on_where_it_was(tmp_path: Path) -> None:
    """The endpoint dies in the middle; the second run asks only for what is missing."""
    with endpoint(
        lambda request, number: says(good(request["messages"][0]["content"])) if number < 2 else None
    ) as seen:
        url = seen.url
        chat = Chat(endpoint=url, model="m", cache=tmp_path, tries=1, sleep=lambda seconds: None)
        with pytest.raises(ValueError, match="gave no usable answer"):
            language_tree(CLASSES, chat, chunk=4)
        assert len(list(tmp_path.iterdir())) == 2

    class Counting(Scripted):
        def ask(self, messages: Messages) -> Answer:
            return chat.ask(messages) if chat._file(messages).is_file() else super().ask(messages)

    model = Counting(lambda prompt, number: good(prompt))
    language_tree(CLASSES, model, chunk=4)
    assert len(model.asked) == 1


def test_a_server_that_is_busy_then_wrong_then_right(tmp_path: Path) -> None:
    def answer(request: dict, number: int) -> Reply:
        if number == 0:
            return Reply("wait", 429, {"Retry-After": "0"})
        return says("hm") if number == 2 else says(good(request["messages"][0]["content"]))

    with endpoint(answer) as seen:
        chat = Chat(endpoint=seen.url, model="m", cache=tmp_path, sleep=lambda seconds: None)
        source = language_tree(CLASSES, chat)
        assert language_tree(CLASSES, chat) == source and len(seen.requests) == 4
