"""The model: instances do not touch each other, and K masks are K times one mask."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from wowseg_models import HEIGHT, WIDTH, one_thread, picture, rectangles, wowseg  # noqa: F401 (a fixture)

from model import debug
from model.attention import visible
from model.branches import NOTHING, Layout
from model.inputs import Sample
from model.wowseg import Output, WowSeg
from pipeline import masks as rle
from pipeline.errors import UserError

LABELS = ["dog", "traffic sign", "a"]
ROOT = Path(__file__).parent.parent
MASKS = rectangles(3)
PACKED = Layout(kind="packed")
CLOSE = 1e-4
"""Of logits about 10 in size: computed in float64, handed out in float32."""


@pytest.fixture(scope="module")
def model() -> WowSeg:
    return wowseg()


@pytest.fixture(scope="module")
def shallow() -> WowSeg:
    """One layer: what a token does not see cannot reach it through others."""
    return wowseg(layers=1)


BRANCHES = Layout()


def sample(
    model: WowSeg, masks: Sequence[Any] = MASKS, labels: Sequence[str] = LABELS, layout: Layout = BRANCHES
) -> Sample:
    return model.preparer.sample(picture(), masks, labels, layout)


def run(model: WowSeg, *samples: Sample) -> Output:
    with torch.no_grad():
        output: Output = model(samples)
    return output


def of(output: Output, instance: int) -> torch.Tensor:
    return output.logits[output.instances == instance]


def repainted(given: Sample, mask: int) -> Sample:
    """The same sample with other pixels in the picture of one mask."""
    pixels = given.pixels.copy()
    place = len(pixels) - len(given.rescued) + mask
    pixels[place] = 255 - pixels[place]
    return given._replace(pixels=pixels)


# --- independence ---


@pytest.mark.parametrize("changed", range(3))
def test_pixels_of_one_region_move_no_other_logit(model: WowSeg, changed: int) -> None:
    before, after = run(model, sample(model)), run(model, repainted(sample(model), changed))
    for instance in range(3):
        same = torch.equal(of(before, instance), of(after, instance))  # to the last bit
        assert same == (instance != changed)


def test_mask_and_label_of_one_instance_move_no_other_logit(model: WowSeg) -> None:
    before = run(model, sample(model))
    other_mask = run(model, sample(model, [MASKS[0], rectangles(1, seed=9)[0], MASKS[2]]))
    other_label = run(model, sample(model, labels=[LABELS[0], "something much longer", LABELS[2]]))
    for after in (other_mask, other_label):
        for instance in (0, 2):
            assert torch.allclose(of(before, instance), of(after, instance), atol=CLOSE)
    assert not torch.allclose(of(before, 1), of(other_mask, 1), atol=0.1)
    assert of(before, 1).shape != of(other_label, 1).shape


def test_the_image_moves_every_logit(model: WowSeg) -> None:
    given = sample(model)
    pixels = given.pixels.copy()
    pixels[0] = 255 - pixels[0]
    before, after = run(model, given), run(model, given._replace(pixels=pixels))
    assert all(not torch.allclose(of(before, k), of(after, k), atol=0.1) for k in range(3))


@pytest.mark.parametrize("region", [True, False])
@pytest.mark.parametrize("output", [True, False])
@pytest.mark.parametrize("owner", ["previous", "next"])
@pytest.mark.parametrize("layers", [1, 2])
def test_packed_leaks_exactly_where_its_mask_lets_through(
    model: WowSeg, shallow: WowSeg, region: bool, output: bool, owner: Any, layers: int
) -> None:
    layout = Layout(kind="packed", region_rule=region, output_rule=output, separator_owner=owner)
    used = {1: shallow, 2: model}[layers]
    given = sample(used, layout=layout)
    reads, positions, branch = (torch.from_numpy(a) for a in (given.row.reads, given.row.positions, given.row.branch))
    sight = visible(reads[:, None], positions[:, None], branch, positions).double()
    reach = torch.linalg.matrix_power(sight, layers) > 0
    states = given.row.targets != NOTHING
    before = run(used, given)
    slots = np.flatnonzero(given.row.slots)[-sum(int(row.sum()) for row in given.cells[-3:]) :]
    bounds = np.cumsum([0, *(int(row.sum()) for row in given.cells[-3:])])
    for changed in range(3):
        after = run(used, repainted(given, changed))
        moved = (before.logits != after.logits).any(1)
        reached = reach[states][:, slots[bounds[changed] : bounds[changed + 1]]].any(1)
        assert torch.equal(moved, reached)


def test_the_authors_mask_predicts_first_tokens_without_their_region(shallow: WowSeg) -> None:
    given = sample(shallow, layout=PACKED)
    before = run(shallow, given)
    moves = [(before.logits != run(shallow, repainted(given, k)).logits).any(1) for k in range(3)]
    first = [int((before.instances == k).nonzero()[0]) for k in range(3)]
    # wowseg_facts.md C.6: label 1 from all regions, label 2 from region 1, label 3 from region 2
    assert [[bool(moves[k][first[j]]) for k in range(3)] for j in range(3)] == [
        [True, True, True],
        [True, False, False],
        [False, True, False],
    ]


# --- K masks are K times one mask ---


def test_many_masks_are_as_many_single_ones(model: WowSeg) -> None:
    model.zero_grad()
    together = model([sample(model)])
    torch.autograd.backward(together.over_instances())
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    alone = [model([sample(model, [mask], [label])]) for mask, label in zip(MASKS, LABELS, strict=True)]
    loss = torch.stack([one.over_instances() for one in alone]).mean()
    torch.autograd.backward(loss)
    for number, one in enumerate(alone):
        assert torch.allclose(of(together, number), one.logits, atol=CLOSE)
    assert together.over_instances().item() == pytest.approx(loss.item(), abs=CLOSE)
    found = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    assert found.keys() == gradients.keys()
    assert len(found) > 60
    for name, gradient in found.items():
        assert torch.allclose(gradient, gradients[name], atol=1e-5 * max(1, float(gradient.abs().max()))), name


def test_losses_are_cross_entropies_of_label_and_end_only(model: WowSeg) -> None:
    found = run(model, sample(model))
    stop, plain = model.preparer.text.stop, model.preparer.tokenizer
    targets = [token for label in LABELS for token in [*plain(label).input_ids, stop]]
    lengths = [len(plain(label).input_ids) + 1 for label in LABELS]
    assert found.instances.tolist() == [k for k, length in enumerate(lengths) for _ in range(length)]
    logprobs = found.logits.log_softmax(-1)
    assert found.losses.tolist() == pytest.approx(
        [-float(logprobs[n, token]) for n, token in enumerate(targets)], abs=1e-5
    )
    assert float(found.over_tokens()) == pytest.approx(float(found.losses.mean()))
    means = [float(found.losses[found.instances == k].mean()) for k in range(3)]
    assert float(found.over_instances()) == pytest.approx(sum(means) / 3)


def test_the_order_of_masks_is_irrelevant(model: WowSeg) -> None:
    order = [2, 0, 1]
    before = run(model, sample(model))
    after = run(model, sample(model, [MASKS[k] for k in order], [LABELS[k] for k in order]))
    for place, k in enumerate(order):
        assert torch.allclose(of(before, k), of(after, place), atol=CLOSE)


@pytest.mark.parametrize("layout", [BRANCHES, PACKED], ids=["branches", "packed"])
def test_padding_is_irrelevant(model: WowSeg, layout: Layout) -> None:
    samples = [sample(model, layout=layout), sample(model, MASKS[:1], ["a very long label indeed"], layout)]
    together = run(model, *samples)
    assert sorted(set(together.instances.tolist())) == [0, 1, 2, 3]  # counted over the batch
    alone = torch.cat([run(model, one).logits for one in samples])
    assert torch.allclose(together.logits, alone, atol=CLOSE)


def test_of_one_mask_both_layouts_are_the_same(model: WowSeg) -> None:
    one, other = (run(model, sample(model, MASKS[:1], LABELS[:1], layout)).logits for layout in (BRANCHES, PACKED))
    assert torch.allclose(one, other, atol=CLOSE)


def test_one_whole_mask_is_what_transformers_own_forward_makes_of_it(model: WowSeg) -> None:
    given = sample(model, [np.ones((HEIGHT, WIDTH), np.bool_)], ["dog"])
    assert given.cells.all()
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    pixels = torch.from_numpy(((given.pixels / 255 - mean) / std).transpose(0, 3, 1, 2))
    tokens = torch.from_numpy(given.row.tokens)[None]
    with torch.no_grad():
        native = model.network(input_ids=tokens, pixel_values=pixels).logits[0].float()
    assert torch.allclose(run(model, given).logits, native[given.row.targets != NOTHING], atol=1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="FlexAttention needs CUDA")
@pytest.mark.parametrize("layout", [BRANCHES, PACKED], ids=["branches", "packed"])
def test_flex_attention_is_sdpa_on_cuda(layout: Layout) -> None:
    flex, plain = (wowseg(attention=kind, double=False).cuda() for kind in ("flex_attention", "sdpa"))
    given = [sample(plain, layout=layout), sample(plain, MASKS[:1], LABELS[:1], layout)]
    assert torch.allclose(run(flex, *given).logits, run(plain, *given).logits, atol=1e-2)
    assert flex.name(picture(), MASKS, most_tokens=4) == plain.name(picture(), MASKS, most_tokens=4)


def test_sdpa_and_eager_are_the_same(model: WowSeg) -> None:
    eager = wowseg(attention="eager")
    assert eager.network.model.language_model.config._attn_implementation == "eager"
    for layout in (BRANCHES, PACKED):
        assert torch.allclose(
            run(model, sample(model, layout=layout)).logits, run(eager, sample(eager, layout=layout)).logits, atol=CLOSE
        )


def test_in_bfloat16_many_masks_are_single_ones_up_to_rounding() -> None:
    model = wowseg().bfloat16()
    together = run(model, sample(model))
    for number, (mask, label) in enumerate(zip(MASKS, LABELS, strict=True)):
        alone = run(model, sample(model, [mask], [label])).logits
        assert float((of(together, number) - alone).abs().max()) < 0.02 * float(alone.abs().max())


def test_the_language_model_sees_no_mask_that_is_causal_only(model: WowSeg) -> None:
    """Without the branches' mask the logits would be others: it is not ignored on the way."""
    given = sample(model)
    open_row = given.row._replace(reads=np.zeros_like(given.row.reads), branch=np.zeros_like(given.row.branch))
    before, after = run(model, given), run(model, given._replace(row=open_row))
    assert not torch.allclose(of(before, 2), of(after, 2), atol=0.1)


def test_activation_checkpointing_changes_nothing(model: WowSeg) -> None:
    other = wowseg().train()
    other.network.activation_checkpointing_enable()
    loss = other([sample(other)]).over_instances()
    torch.autograd.backward(loss)
    assert loss.item() == pytest.approx(float(run(model, sample(model)).over_instances()), abs=CLOSE)


def test_the_debug_size_learns() -> None:
    model = debug.debug(tiles=1).train()
    assert sum(weight.numel() for weight in model.parameters()) < 500_000
    names, shapes = ["dog", "traffic sign"], [MASKS[0], ~MASKS[0]]
    given = model.preparer.sample(picture(), shapes, names)
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(60):
        optimiser.zero_grad()
        torch.autograd.backward(model([given]).over_instances())
        optimiser.step()
    assert [named.label for named in model.eval().name(picture(), shapes)] == names


def test_preparing_needs_no_torch() -> None:
    program = "import model.inputs, sys; print('torch' in sys.modules, 'transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["False", "False"]


# --- bad input ---


@pytest.mark.parametrize(
    ("mask", "told"),
    [
        (np.zeros((HEIGHT, WIDTH), np.bool_), "mask 1 is empty"),
        (np.ones((WIDTH, HEIGHT), np.bool_), r"mask 1 is 150×110 \(height×width\), its image 110×150"),
        (np.ones((HEIGHT, WIDTH, 3), np.bool_), "mask 1 is 110×150×3"),
        ({"size": [10, 10], "counts": "1"}, "mask 1 is 10×10"),
        ({"size": [HEIGHT, WIDTH], "counts": [5, 3]}, "mask 1: neither a boolean array nor"),
        ({}, "mask 1: neither a boolean array nor"),
        ({"size": [HEIGHT, WIDTH], "counts": "11"}, "its runs do not fill it"),
        ({"size": [HEIGHT, WIDTH], "counts": "\x7f"}, "its runs do not fill it"),
    ],
)
def test_masks_that_cannot_be_used(model: WowSeg, mask: Any, told: str) -> None:
    with pytest.raises(UserError, match=told):
        model.name(picture(), [MASKS[0], mask])


def test_labels_that_cannot_be_used(model: WowSeg) -> None:
    with pytest.raises(UserError, match="2 labels for 3 masks"):
        sample(model, labels=["a", "b"])
    with pytest.raises(UserError, match="label 1 is empty"):
        sample(model, labels=["a", "  ", "b"])
    with pytest.raises(UserError, match="no mask"):
        sample(model, [], [])
    with pytest.raises(UserError, match="empty batch"):
        model([])


def test_a_coco_rle_is_a_mask(model: WowSeg) -> None:
    given = {"size": [HEIGHT, WIDTH], "counts": rle.encode(MASKS[0]).encode()}
    assert torch.equal(
        run(model, sample(model, [given], ["a"])).logits, run(model, sample(model, [MASKS[0]], ["a"])).logits
    )


@pytest.mark.parametrize("size", [(1, 1), (20_000, 100), (3, 700)])
def test_odd_images_have_a_defined_result(model: WowSeg, size: tuple[int, int]) -> None:
    mask = np.zeros((size[1], size[0]), np.bool_)
    mask[size[1] // 2, size[0] // 2] = True
    (named,) = model.name(Image.new("RGB", size), [mask], most_tokens=2)
    assert 1 <= named.tokens <= 2


def test_exif_rotation_is_ignored_since_masks_refer_to_the_pixels_as_they_lie(model: WowSeg) -> None:
    turned = picture()
    turned.getexif()[0x0112] = 6
    assert model.name(turned, MASKS, most_tokens=3) == model.name(picture(), MASKS, most_tokens=3)


def test_grey_and_transparent_pictures(model: WowSeg) -> None:
    grey = picture().convert("L")
    assert model.name(grey, MASKS, most_tokens=3) == model.name(grey.convert("RGB"), MASKS, most_tokens=3)
    assert len(model.name(picture().convert("RGBA"), MASKS, most_tokens=3)) == 3
