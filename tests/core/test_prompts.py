from __future__ import annotations

import pytest

from verl_rsim.core.prompts import Codec, eos_ids, planner_messages
from verl_rsim.core.strategies import LABELS, STRATEGIES, count_by_keyword, parse_choice
from verl_rsim.utils.errors import ConfigError


def test_there_are_nine_strategies_with_a_label_each():
    assert len(STRATEGIES) == len(LABELS) == 9
    assert len({s.name for s in STRATEGIES}) == 9
    titles = [s.title for s in STRATEGIES]
    assert titles == [
        "self-reflection",
        "decomposition",
        "deliberative thinking",
        "validation",
        "summarization",
        "prioritization",
        "sub-planning",
        "continuation",
        "termination",
    ]


def test_every_strategy_is_found_by_its_own_words():
    for index, strategy in enumerate(STRATEGIES):
        assert count_by_keyword(strategy.keywords[0])[index] == 1


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("4", 3),
        (" 9.", 8),
        ("self-reflection", 0),
        ("Sub-planning!", 6),
        ("12", None),
        ("", None),
        ("validation, summarization", None),
    ],
)
def test_free_choices(text, index):
    assert parse_choice(text) == index


def test_the_menu_names_each_strategy_by_its_label():
    text = planner_messages([{"role": "user", "content": "Why?"}])[0]["content"]
    for label, strategy in zip(LABELS, STRATEGIES, strict=True):
        assert f"\n{label} {strategy.title}: " in text
    assert "Why?" in text


def test_a_question_with_an_image_is_refused():
    content = [{"type": "image"}, {"type": "text", "text": "What is this?"}]
    with pytest.raises(ValueError, match=r"an episode is text, and a message .* holds \[{'type': 'image'}"):
        planner_messages([{"role": "user", "content": content}])


@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_ids_of_a_chat_are_the_tokenizers_own(tokenizers, name):
    tokenizer = tokenizers[name]
    messages = [{"role": "user", "content": "What is 2 + 3?"}]
    own = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
    assert list(Codec(tokenizer, eos_ids(tokenizer)).chat(messages)) == own


@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_an_open_chat_and_a_user_turn_make_up_the_whole_template(tokenizers, name):
    codec = Codec(tokenizers[name], frozenset())
    before, after = codec.user_turn()
    first = [{"role": "user", "content": "one"}]
    conversation = [*first, {"role": "assistant", "content": "two"}, {"role": "user", "content": "three"}]
    built = codec.decode(codec.chat(first, open_end=True)) + after + "two" + before + "three" + after
    shown = codec.render(conversation)
    assert codec.decode(codec.encode(built)) == codec.decode(codec.encode(shown))


def test_labels_are_single_tokens_or_the_config_is_refused(tokenizers, letters):
    for tokenizer in tokenizers.values():
        ids = Codec(tokenizer, frozenset()).label_ids()
        assert [tokenizer.decode([i]) for i in ids] == list(LABELS)

    class NoDigits(type(letters.tokenizer)):
        def encode(self, text, add_special_tokens=False):
            return [7, 7] if text.isdigit() else super().encode(text)

        def convert_tokens_to_ids(self, token):
            return None

    with pytest.raises(ConfigError, match=r"no single token for the strategy label '1'.*free"):
        Codec(NoDigits(), frozenset()).label_ids()


def test_eos_ids_of_all_sources():
    class Source:
        def __init__(self, value):
            self.eos_token_id = value

    assert eos_ids(Source(2), Source([2, 7]), Source(None)) == {2, 7}
