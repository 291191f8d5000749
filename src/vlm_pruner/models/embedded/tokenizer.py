"""The tokenizer: whole words of the benchmark's vocabulary, single characters for everything else."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from vlm_pruner.scenes import vocabulary as v

PAD, BOS, EOS, UNK, IMAGE, USER, ASSISTANT = "<pad>", "<s>", "</s>", "<unk>", "<image>", "USER:", "ASSISTANT:"
SPECIAL = (PAD, BOS, EOS, UNK, IMAGE, USER, ASSISTANT)
QUESTION_WORDS = (
    "is",
    "there",
    "a",
    "what",
    "where",
    "which",
    "how",
    "many",
    "color",
    "the",
    "object",
    "symbols",
    "are",
    "of",
    "or",
    "larger",
    "smaller",
    "character",
    "background",
    "number",
    "word",
    "code",
    "yes",
    "no",
    "gray",
)
SPACE = "▁"
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}USER: {% else %}ASSISTANT: {% endif %}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}<image>\n{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}{% endif %} "
    "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def pieces() -> list[str]:
    """All pieces, special ones first."""
    words = [*QUESTION_WORDS, *v.CATEGORIES, *v.TINY, *v.COLORS, *v.PLACES, *v.ROLES, *v.COUNTS, *v.SLOTS]
    chars = [*v.ALPHABET, *(chr(c) for c in range(33, 127))]
    return list(dict.fromkeys([*SPECIAL, SPACE, *(SPACE + w for w in words), *chars]))


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A Unigram tokenizer in which a known word is always one piece; capitals of question words are folded."""
    score = {piece: -1.0 if len(piece) > 1 else -20.0 for piece in pieces()}
    core = Tokenizer(models.Unigram([(p, score[p]) for p in pieces()], unk_id=SPECIAL.index(UNK)))
    openers = ("Is", "What", "Where", "Which", "How")
    core.normalizer = normalizers.Sequence([normalizers.Replace(word + " ", word.lower() + " ") for word in openers])
    core.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always")
    core.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme="always")
    core.add_special_tokens(
        [
            AddedToken(
                name,
                special=True,
                normalized=False,
                lstrip=name in (IMAGE, ASSISTANT),
                rstrip=name in (USER, IMAGE, ASSISTANT),
            )
            for name in SPECIAL
        ]
    )
    core.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, SPECIAL.index(BOS))])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        pad_token=PAD,
        padding_side="left",
        additional_special_tokens=[IMAGE, USER, ASSISTANT],
        extra_special_tokens={"image_token": IMAGE},
        clean_up_tokenization_spaces=False,
        model_max_length=8192,
    )
