"""One picture or video of every kind, as a processor would hand it over: placeholder, number of tokens, tensors."""

from __future__ import annotations

from collections.abc import Callable

import torch
from tests.support.configs import IMAGE, PINPOINTS, VIDEO
from torch import Generator, Tensor
from transformers.models.llava_next.modeling_llava_next import (
    get_anyres_image_grid_shape,
    image_size_to_num_patches,
    unpad_image,
)

Payload = dict[str, Tensor]
Block = tuple[int, int, Payload]
Blocks = Callable[[Generator], Block]

SIZES = [(40, 50), (28, 56), (50, 23), (56, 30)]  # (height, width) of anyres pictures


def noise(generator: Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def square(size: int = 28, tokens: int = 16, key: str = "pixel_values") -> Blocks:
    return lambda generator: (IMAGE, tokens, {key: noise(generator, 1, 3, size, size)})


def frames(tokens: int) -> Blocks:
    return lambda generator: (VIDEO, tokens, {"pixel_values_videos": noise(generator, 1, 3, 3, 28, 28)})


def tiles(generator: Generator) -> Block:
    """One or two squares of 16 tokens without text between them."""
    count = int(torch.randint(1, 3, (1,), generator=generator))
    return IMAGE, 16 * count, {"pixel_values": noise(generator, count, 3, 32, 32)}


def sample(generator: Generator) -> Block:
    """A square with an axis for the pictures of a sample."""
    return IMAGE, 16, {"pixel_values": noise(generator, 1, 1, 3, 32, 32)}


def any_size(tokens: int) -> Blocks:
    sizes = torch.tensor([[42, 28]])
    return lambda generator: (IMAGE, tokens, {"pixel_values": noise(generator, 1, 3, 42, 28), "image_sizes": sizes})


def merged_size(generator: Generator) -> Block:
    """4 x 2 merged cells of 2 x 2 patches of 7 pixels."""
    return IMAGE, 8, {"pixel_values": noise(generator, 1, 3, 56, 28), "image_sizes": torch.tensor([[56, 28]])}


def anyres(generator: Generator) -> Block:
    size = SIZES[int(torch.randint(0, len(SIZES), (1,), generator=generator))]
    rows, columns = get_anyres_image_grid_shape(size, PINPOINTS, 28)
    _, h, w = unpad_image(torch.empty(1, rows * 4, columns * 4), size).shape
    seen = image_size_to_num_patches(size, PINPOINTS, 28)
    pixels = torch.zeros(1, 5, 3, 28, 28, dtype=torch.float64)
    pixels[:, :seen] = noise(generator, 1, seen, 3, 28, 28)
    return IMAGE, 16 + h * (w + 1), {"pixel_values": pixels, "image_sizes": torch.tensor([size])}


def downsampled(generator: Generator) -> Block:
    """The same pictures, with 2 x 2 tokens to a tile."""
    token, _, payload = anyres(generator)
    size = payload["image_sizes"][0].tolist()
    rows, columns = get_anyres_image_grid_shape(size, PINPOINTS, 28)
    _, h, w = unpad_image(torch.empty(1, rows * 2, columns * 2), size).shape
    return token, 4 + h * (w + 1), payload


def three_rows(generator: Generator) -> Block:
    """3 rows of 2 to 4 patches of 4 pixels."""
    w = int(torch.randint(2, 5, (1,), generator=generator))
    return IMAGE, 3 * w, {"pixel_values": noise(generator, 1, 3 * w, 48)}


def padded(generator: Generator) -> Block:
    """Patches of 4 pixels, with padding at the right of every row and below: 2 x 4, 3 x 3 or 3 x 2 of them."""
    h, w = [(8, 12), (11, 10), (12, 6)][int(torch.randint(0, 3, (1,), generator=generator))]
    rows, columns = -(-h // 4), w // 4 + 1
    picture = torch.full((rows * 4, columns * 4, 3), -0.01, dtype=torch.float64)
    picture[:h, :w] = noise(generator, h, w, 3).abs()
    cut = picture.view(rows, 4, columns, 4, 3).transpose(1, 2).flatten(0, 1)
    return IMAGE, rows * columns, {"pixel_values": cut[:, None].expand(-1, 2, -1, -1, -1).clone()}


def mapped(generator: Generator) -> Block:
    """2 x 3 to 3 x 3 cells of 4 pixels, in a square of 12 that is padded to one size."""
    h, w = [(8, 12), (12, 12), (12, 8)][int(torch.randint(0, 3, (1,), generator=generator))]
    return IMAGE, h * w // 16, {"pixel_values": noise(generator, 1, 3, 12, 12), "image_sizes": torch.tensor([[h, w]])}


def patches(generator: Generator) -> Block:
    h, w = [(4, 6), (8, 4), (6, 6)][int(torch.randint(0, 3, (1,), generator=generator))]
    pixels = noise(generator, h * w, 3 * 2 * 16)
    return IMAGE, h * w // 4, {"pixel_values": pixels, "image_grid_thw": torch.tensor([[1, h, w]])}


def flat_patches(square: bool = True, **more: Tensor) -> Blocks:
    """The same without a time axis, as [n, 3, 4, 4] or [n, 48]."""

    def block(generator: Generator) -> Block:
        token, count, payload = patches(generator)
        pixels = payload["pixel_values"].view(-1, 3, 2, 4, 4)[:, :, 0]
        return token, count, {**payload, "pixel_values": pixels if square else pixels.flatten(1), **more}

    return block


def patch_frames(generator: Generator) -> Block:
    pixels = noise(generator, 3 * 4 * 6, 3 * 2 * 16)
    return VIDEO, 18, {"pixel_values_videos": pixels, "video_grid_thw": torch.tensor([[3, 4, 6]])}


def twice(generator: Generator) -> Block:
    """A square, and the same picture twice as large."""
    return (
        IMAGE,
        16,
        {"pixel_values": noise(generator, 1, 3, 28, 28), "high_res_pixel_values": noise(generator, 1, 3, 56, 56)},
    )


def masked_sample(generator: Generator) -> Block:
    token, count, payload = sample(generator)
    return token, count, {**payload, "pixel_attention_mask": torch.ones(1, 1, dtype=torch.bool)}


def framed_rows(generator: Generator) -> Block:
    """Merged patches, a token behind every row, one before and one behind all of them."""
    token, _, payload = flat_patches(square=False)(generator)
    _, h, w = payload["image_grid_thw"][0].tolist()
    return token, h // 2 * (w // 2 + 1) + 2, payload


def closed_rows(generator: Generator) -> Block:
    """Merged patches, a token behind every row."""
    token, _, payload = flat_patches(square=False)(generator)
    _, h, w = payload["image_grid_thw"][0].tolist()
    return token, h // 2 * (w // 2 + 1), payload


def coded_rows(generator: Generator) -> Block:
    """4 rows of 6 cells of 4 pixels, and a token behind every row."""
    return IMAGE, 28, {"pixel_values": noise(generator, 1, 3, 16, 24), "image_sizes": torch.tensor([[16, 24]])}


def two_tiles(generator: Generator) -> Block:
    return IMAGE, 32, {"pixel_values": noise(generator, 1, 2, 3, 28, 28)}


def pooled(generator: Generator) -> Block:
    """An overview of 2 x 2 tokens, then 2 x 4 tokens of two crops; each is pooled from 2 x 2 of 16 patches a crop."""
    square = torch.arange(16).view(2, 2, 2, 2).transpose(1, 2).reshape(4, 4)  # patches of a crop's tokens
    crops = torch.cat([square[:2] + 16, square[:2] + 32, square[2:] + 16, square[2:] + 32])
    grids = torch.tensor([[2, 2, 2, 4]])
    pixels = noise(generator, 3, 16, 3 * 49)
    return IMAGE, 12, {"pixel_values": pixels, "image_token_pooling": torch.cat([square, crops]), "image_grids": grids}


def offset_pooling(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """As the processor numbers the patches: through all pictures, 48 each."""
    if "image_grids" in inputs:
        first = 48 * torch.arange(len(inputs["image_grids"])).repeat_interleave(12)
        inputs["image_token_pooling"] = inputs["image_token_pooling"] + first[:, None]
    return inputs


def crops(generator: Generator) -> Block:
    """None to two crops of 2 x 2 tokens, then 4 x 4 tokens of the whole picture."""
    count = int(torch.randint(0, 3, (1,), generator=generator))
    payload = {"pixel_values": noise(generator, 1, 3, 64, 64), "num_local_patches": torch.tensor([count])}
    if count:
        payload["pixel_values_local"] = noise(generator, count, 3, 32, 32)
    return IMAGE, 16 + 4 * count, payload


def placed(pool: int = 2, frames: int = 0) -> Blocks:
    """Patches with their places (x, y), padded to 36, of one picture or of the `frames` of a video; squares of
    `pool` x `pool` patches become one token."""

    def block(generator: Generator) -> Block:
        h, w = [(4, 8), (6, 6), (8, 4)][int(torch.randint(0, 3, (1,), generator=generator))]
        place = torch.full((1, 36, 2), -1)
        place[0, : h * w] = torch.cartesian_prod(torch.arange(h), torch.arange(w)).flip(1)
        pixels = noise(generator, max(1, frames), 36, 3 * (4 * (3 - pool)) ** 2).sigmoid()
        tokens = h * w // pool**2
        if not frames:
            return IMAGE, tokens, {"pixel_values": pixels, "image_position_ids": place}
        video = {"video_position_ids": place.expand(frames, -1, -1), "num_frames_per_video": torch.tensor([frames])}
        return VIDEO, tokens * frames, {"pixel_values_videos": pixels, **video}

    return block


def shaped(generator: Generator) -> Block:
    """Patches padded to 48, with the size of the picture in patches; 2 x 2 of them to a token."""
    h, w = [(4, 6), (8, 4), (6, 6)][int(torch.randint(0, 3, (1,), generator=generator))]
    pixels = torch.zeros(1, 48, 48, dtype=torch.float64)
    pixels[:, : h * w] = noise(generator, 1, h * w, 48)
    real = (torch.arange(48) < h * w).long()[None]
    payload = {"pixel_values": pixels, "spatial_shapes": torch.tensor([[h, w]]), "pixel_attention_mask": real}
    return IMAGE, h * w // 4, payload


def packed(side: int) -> Blocks:
    """Patches of 4 pixels of all pictures in one row behind one another; `side` x `side` of them to a token."""

    def block(generator: Generator) -> Block:
        h, w = [(8, 12), (16, 8), (12, 12)][int(torch.randint(0, 3, (1,), generator=generator))]
        pixels = noise(generator, 1, 3, 4, h * w * 4)
        return IMAGE, h * w // side**2, {"pixel_values": pixels, "target_sizes": torch.tensor([[h, w]])}

    return block


def flat_grid(generator: Generator) -> Block:
    """Flat patches with the size of the picture in patches; 2 x 2 of them to a token."""
    token, count, payload = flat_patches(square=False)(generator)
    return token, count, {"pixel_values": payload["pixel_values"], "image_grid_hw": payload["image_grid_thw"][:, 1:]}


def tiled_plane(generator: Generator) -> Block:
    """None or 1 x 2 tiles of 2 x 2 tokens with a token behind every row; then the whole picture so, and a separator."""
    columns = 2 * int(torch.randint(0, 2, (1,), generator=generator))
    payload = {"pixel_values": noise(generator, 1, 3, 32, 32), "num_local_patches": torch.tensor([columns])}
    payload["patches_grid"] = torch.tensor([[max(1, columns), 1]])
    if columns:
        payload["pixel_values_local"] = noise(generator, columns, 3, 32, 32)
    return IMAGE, 7 + (2 * (2 * columns + 1) if columns else 0), payload


def listed(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Counts as lists, as the processor gives them."""
    names = ("num_local_patches", "patches_grid")
    return {key: value.tolist() if key in names else value for key, value in inputs.items()}
