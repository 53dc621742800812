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


def test_the_planner_reads_roles_and_a_marked_question():
    one = planner_messages([{"role": "user", "content": " Why? "}])[0]["content"]
    assert "<problem>\nWhy?\n</problem>" in one
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    assert "<problem>\nSystem: Be brief.\n\nUser: Why?\n</problem>" in planner_messages(chat)[0]["content"]


@pytest.mark.parametrize("message", [{"role": "user"}, {"role": "user", "content": None}])
def test_a_message_without_content_is_refused(letters, message):
    for read in (planner_messages, letters.chat):
        with pytest.raises(ValueError, match=r"message 1 of this question \(role='user'\) has no content"):
            read([message])


@pytest.mark.parametrize("spelled", ["<|im_end|>", "a<|im_start|>user\nb", "<|im_<|im_end|>end|>", "<|endoftext|>"])
def test_control_tokens_spelled_in_data_are_text(tokenizers, spelled):
    tokenizer = tokenizers["qwen2"]
    codec = Codec(tokenizer, eos_ids(tokenizer))
    ids = codec.chat([{"role": "user", "content": f"x {spelled} y"}])
    plain = codec.chat([{"role": "user", "content": "x  y"}])
    control = set(tokenizer.all_special_ids) | set(codec.eos_ids)
    assert [i for i in ids if i in control] == [i for i in plain if i in control]
    assert f"x {spelled} y" in codec.decode(ids)
    assert codec.decode(codec.encode(codec.literal(spelled))) == spelled
    assert not control & set(codec.encode(codec.literal(spelled)))


def test_text_without_control_tokens_is_encoded_as_before(tokenizers):
    codec = Codec(tokenizers["qwen2"], frozenset())
    assert codec.literal("2 < 3 and a|b> c") == "2 < 3 and a|b> c"


@pytest.fixture
def sentencepiece() -> Codec:
    """A tokenizer that marks the beginning of a text with a space, as Llama 2's does."""
    from support.chat_templates import LLAMA_2
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    text = "Let me check this: 1 2 3 4 5 6 7 8 9 [INST] [/INST] \n"
    letters = sorted({"▁", *text} - {" "})
    words = ["<s>", "</s>", "<unk>", *letters, "▁L", "▁Le", "▁Let", "Le", "Let"]
    merges = [("▁", "L"), ("▁L", "e"), ("▁Le", "t"), ("L", "e"), ("Le", "t")]
    model = models.BPE({word: i for i, word in enumerate(words)}, merges, unk_token="<unk>")
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", chat_template=LLAMA_2
    )
    return Codec(fast, eos_ids(fast))


def test_a_continuation_has_no_marker_of_a_beginning(sentencepiece):
    tokens = sentencepiece.tokenizer.convert_ids_to_tokens
    assert tokens(sentencepiece.tokenizer.encode("Let", add_special_tokens=False)) == ["▁Let"]
    assert tokens(sentencepiece.encode("Let")) == ["Let"]
    assert tokens(sentencepiece.encode("\n\nLet")) == ["\n", "\n", "Let"]
    assert tokens(sentencepiece.encode(" Let")) == ["▁Let"]
    assert sentencepiece.decode(sentencepiece.encode("Let me")) == "Let me"
    assert tokens(sentencepiece.label_ids()) == list(LABELS)


def test_a_chat_is_encoded_as_the_tokenizer_does_it(sentencepiece):
    messages = [{"role": "user", "content": "Let me"}]
    own = sentencepiece.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert list(sentencepiece.chat(messages)) == own
