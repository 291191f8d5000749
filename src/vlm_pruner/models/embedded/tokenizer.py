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
VIDEO = "<video>"
VIDEO_WORDS = (  # of questions about videos
    "at",
    "start",
    "middle",
    "end",
    "last",
    "before",
    "after",
    "does",
    "move",
    "up",
    "down",
    "times",
    "appear",
    "when",
)
SPACE = "▁"
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}USER: {% else %}ASSISTANT: {% endif %}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}<image>\n{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}{% endif %} "
    "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


VIDEO_CHAT_TEMPLATE = CHAT_TEMPLATE.replace(
    "{% for part in message['content'] if part['type'] == 'text'",
    "{% for part in message['content'] if part['type'] == 'video' %}<video>\n{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text'",
)


def pieces(video: bool = False) -> list[str]:
    """All pieces, special ones first; those of the video form go on after them."""
    words = [*QUESTION_WORDS, *v.CATEGORIES, *v.TINY, *v.COLORS, *v.PLACES, *v.ROLES, *v.COUNTS, *v.SLOTS]
    chars = [*v.ALPHABET, *(chr(c) for c in range(33, 127))]
    more = [VIDEO, *(SPACE + w for w in VIDEO_WORDS)] if video else []
    return list(dict.fromkeys([*SPECIAL, SPACE, *(SPACE + w for w in words), *chars, *more]))


def build_tokenizer(video: bool = False) -> PreTrainedTokenizerFast:
    """A Unigram tokenizer in which a known word is always one piece; capitals of question words are folded."""
    special = (*SPECIAL, VIDEO) if video else SPECIAL
    scores = [(piece, -1.0 if len(piece) > 1 else -20.0) for piece in pieces(video)]
    core = Tokenizer(models.Unigram(scores, unk_id=SPECIAL.index(UNK)))
    openers = ("Is", "What", "Where", "Which", "How", *(("When",) if video else ()))
    core.normalizer = normalizers.Sequence([normalizers.Replace(word + " ", word.lower() + " ") for word in openers])
    core.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always")
    core.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme="always")
    core.add_special_tokens(
        [
            AddedToken(
                name,
                special=True,
                normalized=False,
                lstrip=name in (IMAGE, VIDEO, ASSISTANT),
                rstrip=name in (USER, IMAGE, VIDEO, ASSISTANT),
            )
            for name in special
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
        additional_special_tokens=[IMAGE, USER, ASSISTANT, *special[len(SPECIAL) :]],
        extra_special_tokens={"image_token": IMAGE, **({"video_token": VIDEO} if video else {})},
        clean_up_tokenization_spaces=False,
        model_max_length=8192,
    )
