import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi_behavior.data.video import VideoError, count_frames, decode, decode_frames


@pytest.fixture(scope="module")
def video(writer, tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "x.mp4"
    writer.write_video(path, [writer.frame_picture(10, 0, t, 32) for t in range(95)], 10)
    return path


def test_whole_video_has_the_pictures_that_were_written(video, writer) -> None:
    frames = decode(video)
    expected = np.stack([writer.frame_picture(10, 0, t, 32) for t in range(95)])
    assert frames.shape == expected.shape
    assert count_frames(video) == len(expected)
    assert np.abs(frames.astype(int) - expected).max() <= 4


@given(indices=st.lists(st.integers(0, 94), min_size=1, max_size=8))
def test_single_frames_are_those_of_the_whole_video(video, indices) -> None:
    np.testing.assert_array_equal(decode_frames(video, indices), decode(video)[indices])


@pytest.mark.parametrize("gop", [3, 250])
def test_frames_are_found_whatever_the_keyframe_distance(writer, tmp_path, gop) -> None:
    writer.write_video(tmp_path / "x.mp4", [writer.frame_picture(10, 0, t, 32) for t in range(90)], gop)
    indices = [89, 0, 44, 45, 7]
    np.testing.assert_array_equal(
        decode_frames(tmp_path / "x.mp4", indices), decode(tmp_path / "x.mp4")[indices]
    )


def test_frames_are_resized_and_padded_to_a_square(writer, tmp_path, video) -> None:
    assert decode(video, 16).shape == (95, 16, 16, 3)
    wide = [np.full((32, 64, 3), 200, np.uint8)] * 3
    writer.write_video(tmp_path / "wide.mp4", wide, 10)
    frame = decode(tmp_path / "wide.mp4", 32)[0]
    assert frame.shape == (32, 32, 3)
    assert frame[:8].max() == 0
    assert frame[24:].max() == 0
    assert abs(int(frame[16, 16, 0]) - 200) < 5


def test_errors_name_the_file(video, tmp_path) -> None:
    with pytest.raises(VideoError, match=r"x\.mp4: no frame 95"):
        decode_frames(video, [3, 95])
    with pytest.raises(VideoError, match="frame -1"):
        decode_frames(video, [-1])
    with pytest.raises(VideoError, match="95 frames; expected 96"):
        decode(video, frames=96)
    with pytest.raises(VideoError, match=r"gone\.mp4: cannot be decoded"):
        decode(tmp_path / "gone.mp4")
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(video.read_bytes()[:500])
    with pytest.raises(VideoError, match=r"cut\.mp4"):
        decode(cut)
    with pytest.raises(VideoError, match=r"cut\.mp4"):
        count_frames(cut)
