"""A model whose template does not fit the dialogue is found before the start, with the setting and the fix."""

from __future__ import annotations

import copy
import dataclasses

import pytest
from support import chat_templates as templates

from verl_rsim.core.prompts import Codec, eos_ids
from verl_rsim.core.template_check import TemplateSettings, check_template

NAMES = TemplateSettings(
    role="reasoner",
    model_key="reasoner.model",
    model="some/model",
    arguments_key="template_kwargs",
    own_template="give it a template",
    merge_system="merge_system=true",
)
USER = {"role": "user", "content": "one"}
ASSISTANT = {"role": "assistant", "content": "two"}
SYSTEM = {"role": "system", "content": "zero"}


@pytest.fixture
def codec_of(tokenizers):
    def make(template: str | None, **fields) -> Codec:
        tokenizer = copy.deepcopy(tokenizers["llama"])
        tokenizer.chat_template = template
        return Codec(tokenizer, eos_ids(tokenizer), **fields)

    return make


def check(codec: Codec, *questions):
    return check_template(codec, {"data": list(questions)}, NAMES)


@pytest.mark.parametrize("name", ["CHATML", "LLAMA_3", "LLAMA_2", "GEMMA_2", "MISTRAL_0_1"])
def test_templates_that_fit(codec_of, name):
    assert check(codec_of(getattr(templates, name)), [USER]) == []


@pytest.mark.parametrize(
    ("name", "key", "details"),
    [
        (
            "GPT_OSS",
            "reasoner.model",
            "writes '<|channel|>final<|message|>' between its generation prompt and an answer",
        ),
        ("COMMAND_R7B", "reasoner.model", "writes '<|START_RESPONSE|>' between"),
        ("R1", "reasoner.model", "generation prompt opens <think>"),
        ("QWEN_3", "template_kwargs", "set template_kwargs.enable_thinking=False"),
        ("WITHOUT_GENERATION_PROMPT", "reasoner.model", "writes '<|assistant|>\\n' between"),
        ("EARLIER_HIDDEN", "reasoner.model", "no answer follows that"),
    ],
)
def test_an_answer_that_does_not_follow_the_generation_prompt_is_refused(codec_of, name, key, details):
    finding, *_ = check(codec_of(getattr(templates, name)))
    assert finding.refused
    assert finding.key == key
    assert details in finding.details
    assert str(finding.error()).startswith(f"{key}=")


def test_qwen3_without_thinking_fits(codec_of):
    assert check(codec_of(templates.QWEN_3, template_kwargs={"enable_thinking": False}), [USER]) == []


def test_other_white_space_is_told_and_not_refused(codec_of):
    (finding,) = check(codec_of(templates.OTHER_SPACE))
    assert not finding.refused
    assert "harmless" in finding.details


@pytest.mark.parametrize(
    ("template", "details"),
    [
        (None, "no chat template; name an instruction-tuned model, or give it a template"),
        ("{{ raise_exception('never') }}", "fails on one user message (never); give it a template"),
        ("hello", "leaves the question out"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused(codec_of, template, details):
    (finding,) = check(codec_of(template))
    assert finding.refused
    assert details in finding.details


def test_a_tokenizer_that_loses_text_is_refused(codec_of):
    codec = codec_of(templates.CHATML)

    class Lossy:
        """What a byte-level vocabulary loses under a SentencePiece class."""

        def __getattr__(self, name):
            return getattr(codec.tokenizer, name)

        def encode(self, text, **kwargs):
            return codec.tokenizer.encode(text.replace("\n", ""), **kwargs)

    (finding,) = check(dataclasses.replace(codec, tokenizer=Lossy(), _known={}))
    assert finding.refused
    assert "its tokenizer changes text" in finding.details
    assert "tokenizer_class" in finding.details


@pytest.mark.parametrize("name", ["GEMMA_2", "MISTRAL_0_1"])
def test_a_refused_system_message_is_merged_and_told_once(codec_of, name):
    codec = codec_of(getattr(templates, name))
    findings = check(codec, [SYSTEM, USER], [SYSTEM, USER, ASSISTANT, USER])
    assert [finding.refused for finding in findings] == [False]
    assert "merged into the first user message (merge_system=true)" in findings[0].details
    assert "zero\n\none" in codec.decode(codec.chat([SYSTEM, USER]))


def test_a_refused_system_message_is_an_error_where_merging_is_off(codec_of):
    (finding,) = check(codec_of(templates.GEMMA_2, merge_system=False), [SYSTEM, USER])
    assert finding.refused
    assert "takes no system message, and the dataset has some; merge_system=true" in finding.details


def test_a_system_message_that_the_template_takes_stays(codec_of):
    codec = codec_of(templates.CHATML)
    assert check(codec, [SYSTEM, USER]) == []
    assert "system\nzero" in codec.decode(codec.chat([SYSTEM, USER]))


def test_roles_that_a_template_refuses_are_named(codec_of):
    (finding,) = check(codec_of(templates.GEMMA_2), [USER], [USER, USER])
    assert (finding.key, finding.value, finding.refused) == ("data", "user, user", True)
    assert "Conversation roles must alternate" in finding.details


def test_a_message_that_a_template_leaves_out_is_named(codec_of):
    only_users = "{% for m in messages %}{% if m['role'] != 'tool' %}<{{ m['role'] }}>{{ m['content'] }}{% endif %}"
    only_users += "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
    (finding,) = check(codec_of(only_users), [USER, {"role": "tool", "content": "three"}, USER])
    assert "leaves out a question's message of the role tool" in finding.details
