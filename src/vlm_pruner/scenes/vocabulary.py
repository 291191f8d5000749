"""The closed world of the offline benchmark: what can appear in a scene and the words that name it."""

from types import MappingProxyType

GLYPHS = MappingProxyType(
    {  # category -> code point of its DejaVu Sans glyph
        "sun": 0x2600,
        "cloud": 0x2601,
        "umbrella": 0x2602,
        "star": 0x2605,
        "phone": 0x260E,
        "cup": 0x2615,
        "skull": 0x2620,
        "moon": 0x263E,
        "knight": 0x265E,
        "club": 0x2663,
        "heart": 0x2665,
        "note": 0x266B,
        "anchor": 0x2693,
        "plane": 0x2708,
        "envelope": 0x2709,
        "scissors": 0x2702,
        "flower": 0x273F,
        "gear": 0x2699,
        "smiley": 0x263B,
        "flag": 0x2691,
    }
)
CATEGORIES = tuple(GLYPHS)
TINY = ("dot", "ring", "cross")  # drawn by our own code, one or two visual tokens large

COLORS = MappingProxyType(
    {
        "red": (230, 26, 26),
        "green": (26, 166, 38),
        "blue": (38, 64, 242),
        "yellow": (250, 230, 26),
        "purple": (140, 26, 179),
        "orange": (255, 128, 13),
        "cyan": (26, 217, 230),
        "white": (237, 237, 237),
    }
)
TINTS = MappingProxyType(
    {
        "red": (255, 90, 80),
        "green": (90, 220, 90),
        "blue": (90, 120, 255),
        "yellow": (245, 215, 80),
        "purple": (190, 90, 230),
        "gray": (200, 200, 200),
    }
)

PLACES = (
    "top-left",
    "top",
    "top-right",
    "middle-left",
    "center",
    "middle-right",
    "bottom-left",
    "bottom",
    "bottom-right",
)
SIZES = ("tiny", "small", "large")
ROLES = ("left", "right", "above", "below")
COUNTS = ("one", "two", "three", "four")
SLOTS = ("first", "second", "third", "fourth", "fifth", "sixth")
KINDS = ("number", "word", "code")

DIGITS = "0123456789"
LETTERS = "ACEHKLMNPRTUXY"  # without letters that look like a digit
ALPHABET = DIGITS + LETTERS
# fmt: off
WORDS = (  # of LETTERS only
    "CAMP", "LAMP", "PARK", "TREE", "RAMP", "MEAL", "TEAM", "LEAP", "CAKE", "LAKE", "NAME", "TALE", "TAPE",
    "HEAT", "MEAT", "NEAR", "PEAR", "REAL", "LUCK", "TRUNK", "PAPER", "MAPLE", "PLANE", "TRAP", "HARP", "CHEAP",
    "METAL", "PANEL", "MARCH", "PATCH", "LUNCH", "TRUCK", "CRANE", "LEMUR", "MELT", "HELP", "KELP", "HUNTER",
    "PLANET", "CARPET", "CAMERA",
)
# fmt: on
