"""Chat templates that write conversations as well-known model families do, reduced to what the dialogue depends on."""

_LOOP = "{% for m in messages %}"
_REFUSE_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
_ALTERNATE = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
    "{% endif %}{% endfor %}"
)

CHATML = _LOOP + (
    "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA_3 = _LOOP + (
    "<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
GPT_OSS = _LOOP + (
    "<|start|>{{ m['role'] }}{% if m['role'] == 'assistant' %}<|channel|>final{% endif %}<|message|>{{ m['content'] }}"
    "{% if m['role'] == 'assistant' and loop.last %}<|return|>{% else %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
COMMAND_R7B = _LOOP + (
    "<|START|>{{ m['role'] | upper }}{% if m['role'] == 'assistant' %}<|START_RESPONSE|>{% endif %}{{ m['content'] }}"
    "<|END|>{% endfor %}{% if add_generation_prompt %}<|START|>ASSISTANT{% endif %}"
)
R1 = (
    "{{ bos_token }}"
    + _LOOP
    + (
        "{% if m['role'] == 'assistant' %}<|Assistant|>{{ m['content'].split('</think>')[-1] }}<|end|>"
        "{% elif m['role'] == 'user' %}<|User|>{{ m['content'] }}{% else %}{{ m['content'] }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|Assistant|><think>\n{% endif %}"
    )
)
QWEN_3 = _LOOP + (
    "<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m['content'] }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
GEMMA_2 = (
    _REFUSE_SYSTEM
    + _ALTERNATE
    + _LOOP
    + (
        "<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n{{ m['content'] | trim }}"
        "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
    )
)
MISTRAL_0_1 = (
    "{{ bos_token }}"
    + _ALTERNATE
    + _LOOP
    + (
        "{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]{% else %}{{ m['content'] }}{{ eos_token }} "
        "{% endif %}{% endfor %}"
    )
)
LLAMA_2 = _LOOP + (
    "{% if m['role'] == 'user' %}{{ bos_token }}[INST] {{ m['content'] | trim }} [/INST]"
    "{% elif m['role'] == 'system' %}<<SYS>>\n{{ m['content'] }}\n<</SYS>>\n\n"
    "{% else %} {{ m['content'] | trim }} {{ eos_token }}{% endif %}{% endfor %}"
)
WITHOUT_GENERATION_PROMPT = _LOOP + "<|{{ m['role'] }}|>\n{{ m['content'] }}</s>\n{% endfor %}"
EARLIER_HIDDEN = "{{ messages[-1]['content'] }}{% if add_generation_prompt %}\nA:{% endif %}"
OTHER_SPACE = (
    _LOOP
    + "<{{ m['role'] }}>{{ ' ' if m['role'] == 'assistant' else '\n' }}{{ m['content'] }}{% endfor %}"
    + ("{% if add_generation_prompt %}<assistant>\n{% endif %}")
)
