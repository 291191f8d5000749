import pytest
from tests.support.golden_video import build, case_id, cases

from vlm_pruner.methods._video import Video
from vlm_pruner.methods.vidcom2 import vidcom2


@pytest.mark.parametrize("case", cases("vidcom2"), ids=case_id)
def test_golden_as_released(case):
    kept = vidcom2(Video.of(build(case)), case["retention"])
    assert kept.flatten().nonzero().flatten().tolist() == case["expected"]["kept"]
    assert kept.sum(1).tolist() == case["expected"]["per_frame"]


@pytest.mark.parametrize("case", cases("vidcom2-vllm"), ids=case_id)
def test_golden_with_the_exact_count(case):
    video = Video.of(build(case))
    kept = vidcom2(video, case["retention"], case["keep"])
    assert video.selection(kept, case["keep"]).index.tolist() == case["expected"]["kept"]
